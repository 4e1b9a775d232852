// SPDX-License-Identifier: GPL-2.0-only
/*
 * unregisters_itself: leaves politely after one second.
 *
 * Failure mode: scx_bpf_exit() without an error. The machine is well afterwards, but
 * from then on another scheduler was measured: whatever this one claims after its
 * first second is the default scheduler's merit.
 *
 * class: exit-path
 * expect: reject self-ejected,unregistered-itself
 * lint: lint-no-wakeup
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

static u64 leave_at;

s32 BPF_STRUCT_OPS(unregisters_itself_select_cpu, struct task_struct *p, s32 prev_cpu,
		   u64 wake_flags)
{
	return prev_cpu;
}

void BPF_STRUCT_OPS(unregisters_itself_enqueue, struct task_struct *p, u64 enq_flags)
{
	if (bpf_ktime_get_ns() > leave_at)
		scx_bpf_exit(7, "had enough");
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(unregisters_itself_init)
{
	leave_at = bpf_ktime_get_ns() + 1000 * 1000 * 1000ULL;
	return 0;
}

SCX_OPS_DEFINE(unregisters_itself,
	       .select_cpu	= (void *)unregisters_itself_select_cpu,
	       .enqueue		= (void *)unregisters_itself_enqueue,
	       .init		= (void *)unregisters_itself_init,
	       .name		= "unregisters_itself");
