// SPDX-License-Identifier: GPL-2.0-only
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

void BPF_STRUCT_OPS(x_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dispatch(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
	scx_bpf_consume(SCX_DSQ_GLOBAL);
	scx_bpf_dispatch_vtime(p, 1, SCX_SLICE_DFL, 0, enq_flags);
	scx_bpf_dsq_move_to_local(0);
}

SCX_OPS_DEFINE(x_ops, .enqueue = (void *)x_enqueue, .name = "x");
