// SPDX-License-Identifier: GPL-2.0-only
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

void BPF_STRUCT_OPS(x_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 queue = SCX_DSQ_GLOBALL;

	scx_bpf_kick_cpuu(0, 0);
	scx_bpf_kick_cpuu(1, 0);
	p->scx.slicee = queue;
	scx_bpf_dsq_insert(p, 1, 2);
}

SCX_OPS_DEFINE(x_ops, .enqueue = (void *)x_enqueue, .name = "x");
