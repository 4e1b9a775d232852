// SPDX-License-Identifier: GPL-2.0-only
/* A flag that remembers the insertion, and a helper that inserts. */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

static __noinline bool local(struct task_struct *p, u64 enq_flags)
{
	if (p->nr_cpus_allowed != 1)
		return false;
	scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SCX_SLICE_DFL, enq_flags);
	return true;
}

void BPF_STRUCT_OPS(flag_and_helper_enqueue, struct task_struct *p, u64 enq_flags)
{
	bool done = false;
	if (p->flags & PF_KTHREAD)
		done = local(p, enq_flags);
	if (!done)
		scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

SCX_OPS_DEFINE(flag_and_helper, .enqueue = (void *)flag_and_helper_enqueue, .name = "flag_and_helper");
