// SPDX-License-Identifier: GPL-2.0-only
/*
 * half_second: batch scheduler: FIFO with half-second turns.
 *
 * Failure mode: no preemption and 500 ms slices. With H hogs waiting per CPU any wake-up on the busy machine, kernel
 * threads included (kworkers, ksoftirqd), takes up to (H + 1) x 0.5 s; a shell is unusable, workqueue and RCU work is
 * late by seconds. Totals look good in a throughput benchmark.
 *
 * class: latency
 * expect: reject
 * needs: at least as many CPU hogs as CPUs, and something that wants to wake up quickly
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0xaf
#define SLICE_NS	(500ULL * 1000 * 1000)

s32 BPF_STRUCT_OPS(half_second_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(half_second_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	/* Long turns keep the caches warm; whoever blocks gives the CPU back early anyway. */
	scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(half_second_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(half_second_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(half_second_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(half_second,
	       .select_cpu	= (void *)half_second_select_cpu,
	       .enqueue	= (void *)half_second_enqueue,
	       .dispatch	= (void *)half_second_dispatch,
	       .init		= (void *)half_second_init,
	       .exit		= (void *)half_second_exit,
	       .name		= "half_second");
