// SPDX-License-Identifier: GPL-2.0-only
/*
 * verifier_rejects: trusts that there is always a previous task.
 *
 * Failure mode: `prev` in ops.dispatch() is NULL when the CPU was idle. It compiles;
 * the verifier refuses the unchecked access, and the cure is one `if (prev)`.
 *
 * class: load-failure
 * expect: reject verifier-rejected
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

static u64 kernel_threads_seen;

void BPF_STRUCT_OPS(verifier_rejects_dispatch, s32 cpu, struct task_struct *prev)
{
	if (prev->flags & PF_KTHREAD)
		kernel_threads_seen++;
}

SCX_OPS_DEFINE(verifier_rejects,
	       .dispatch	= (void *)verifier_rejects_dispatch,
	       .name		= "verifier_rejects");
