// SPDX-License-Identifier: GPL-2.0-only
/*
 * tick_refill: FIFO whose tick refills the slice of the running task when its CPU has nothing else to run.
 *
 * Failure mode: "nothing else to run" is asked of the local queue only, but tasks wait in the shared queue. Every
 * tick renews the slice, so a CPU hog is never preempted; once every CPU has one, all other tasks starve (stall after
 * 15 s). With fewer hogs than CPUs it behaves.
 *
 * class: slice
 * expect: reject
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x83
#define SLICE_NS	(5ULL * 1000 * 1000)

s32 BPF_STRUCT_OPS(tick_refill_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(tick_refill_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(tick_refill_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

void BPF_STRUCT_OPS(tick_refill_tick, struct task_struct *p)
{
	s32 cpu = scx_bpf_task_cpu(p);

	/* Nobody waits for this CPU: save a pointless trip through the scheduler. */
	if (!scx_bpf_dsq_nr_queued(SCX_DSQ_LOCAL_ON | cpu))
		scx_bpf_task_set_slice(p, SLICE_NS);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(tick_refill_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(tick_refill_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(tick_refill,
	       .select_cpu	= (void *)tick_refill_select_cpu,
	       .enqueue	= (void *)tick_refill_enqueue,
	       .dispatch	= (void *)tick_refill_dispatch,
	       .tick		= (void *)tick_refill_tick,
	       .init		= (void *)tick_refill_init,
	       .exit		= (void *)tick_refill_exit,
	       .timeout_ms	= 15000,
	       .name		= "tick_refill");
