// SPDX-License-Identifier: GPL-2.0-only
/*
 * wakers_first: local queues; a woken task preempts whoever runs on its CPU.
 *
 * Failure mode: any wake-up preempts, whatever the woken task has used. A task that computes 2 ms and sleeps 50 us
 * beside a plain hog on a CPU takes 97 % of it, two of them leave the hog a percent or two (EEVDF: half, a third); no
 * stall, as it does run now and then. And local queues are never balanced: hogs that met on a CPU stay there. "Wakes
 * up" is not "interactive".
 *
 * class: starvation
 * expect: reject
 * needs: a CPU hog and a task that sleeps often but briefly, competing for a CPU
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SLICE_NS	(10ULL * 1000 * 1000)

s32 BPF_STRUCT_OPS(wakers_first_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(wakers_first_enqueue, struct task_struct *p, u64 enq_flags)
{
	/* Whoever wakes up is interactive and must run now. */
	if (enq_flags & SCX_ENQ_WAKEUP)
		enq_flags |= SCX_ENQ_HEAD | SCX_ENQ_PREEMPT;
	scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
}

void BPF_STRUCT_OPS(wakers_first_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(wakers_first,
	       .select_cpu	= (void *)wakers_first_select_cpu,
	       .enqueue	= (void *)wakers_first_enqueue,
	       .exit		= (void *)wakers_first_exit,
	       .name		= "wakers_first");
