// SPDX-License-Identifier: GPL-2.0-only
/*
 * inserts_twice: a special case without its return.
 *
 * Failure mode: pinned tasks are put into their CPU's own queue, and then,
 * because the return is missing, into the global one too. The kernel ejects
 * whoever inserts a task that waits already.
 *
 * class: runtime-error
 * expect: reject scheduler-error
 * lint: lint-double-insert
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

void BPF_STRUCT_OPS(inserts_twice_enqueue, struct task_struct *p, u64 enq_flags)
{
	if (p->nr_cpus_allowed == 1)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SCX_SLICE_DFL, enq_flags);

	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

SCX_OPS_DEFINE(inserts_twice,
	       .enqueue	= (void *)inserts_twice_enqueue,
	       .name	= "inserts_twice");
