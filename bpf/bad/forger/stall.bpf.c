// SPDX-License-Identifier: GPL-2.0-only
/*
 * The scheduler that the forger hides: it takes every task and runs none.
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

s32 BPF_STRUCT_OPS(forger_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	return prev_cpu;
}

void BPF_STRUCT_OPS(forger_enqueue, struct task_struct *p, u64 enq_flags)
{
}

SCX_OPS_DEFINE(forger_ops,
	       .select_cpu	= (void *)forger_select_cpu,
	       .enqueue		= (void *)forger_enqueue,
	       .timeout_ms	= 4000,
	       .name		= "forger");
