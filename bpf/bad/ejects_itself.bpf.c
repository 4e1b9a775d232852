// SPDX-License-Identifier: GPL-2.0-only
/*
 * ejects_itself: reports an error after 500 decisions.
 *
 * Failure mode: an assertion of the scheduler's own, scx_bpf_error(), that holds in
 * a short test and not in a longer one.
 *
 * class: exit-path
 * expect: reject self-ejected
 * lint: lint-no-wakeup
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

static u64 decisions;

s32 BPF_STRUCT_OPS(ejects_itself_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	return prev_cpu;
}

void BPF_STRUCT_OPS(ejects_itself_enqueue, struct task_struct *p, u64 enq_flags)
{
	if (__sync_fetch_and_add(&decisions, 1) == 500)
		scx_bpf_error("decision table overflow at %s[%d]", p->comm, p->pid);
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

SCX_OPS_DEFINE(ejects_itself,
	       .select_cpu	= (void *)ejects_itself_select_cpu,
	       .enqueue		= (void *)ejects_itself_enqueue,
	       .name		= "ejects_itself");
