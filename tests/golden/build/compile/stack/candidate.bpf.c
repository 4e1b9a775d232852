// SPDX-License-Identifier: GPL-2.0-only
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

void BPF_STRUCT_OPS(x_enqueue, struct task_struct *p, u64 enq_flags)
{
	char big[600];

	bpf_probe_read_kernel(big, sizeof(big), p);
	if (big[1] == big[599])
		scx_bpf_kick_cpu(big[17], 0);
}

SCX_OPS_DEFINE(x_ops, .enqueue = (void *)x_enqueue, .name = "x");
