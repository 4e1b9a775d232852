// SPDX-License-Identifier: GPL-2.0-only
/*
 * has_work_flag: FIFO with a flag that saves idle CPUs a look into the shared queue.
 *
 * Failure mode: between the look into the queue and has_work = 0 another CPU can insert a task and set the flag; the
 * flag is then cleared and the task stays until the next task is queued. A CPU that may not run what is queued
 * (pinned tasks) also finds nothing and clears the flag for the CPU that may. On a machine that then has idle CPUs
 * wake-ups take the direct path, nobody queues, and the task hangs for seconds up to the stall timeout (30 s).
 * Benchmarks with constant load heal it at once.
 *
 * class: race
 * expect: reject
 * needs: 2 CPUs; wake-ups with about as many runnable tasks as CPUs, and pinned tasks
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x8e
#define SLICE_NS	(5ULL * 1000 * 1000)

static volatile u32 has_work;
static u64 dry_since;
static u64 dry_by_cpu[1024];

s32 BPF_STRUCT_OPS(has_work_flag_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(has_work_flag_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);
	has_work = 1;
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(has_work_flag_dispatch, s32 cpu, struct task_struct *prev)
{
	u64 now;

	/* Don't fight for the lock of the shared queue when it is empty anyway. */
	if (!has_work)
		return;
	if (scx_bpf_dsq_move_to_local(SHARED_DSQ, 0))
		return;

	/* Ran dry: note when and where, then let the others know. */
	now = bpf_ktime_get_ns();
	dry_by_cpu[cpu & 1023] = now;
	if (now > dry_since)
		dry_since = now;
	has_work = 0;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(has_work_flag_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(has_work_flag_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(has_work_flag,
	       .select_cpu	= (void *)has_work_flag_select_cpu,
	       .enqueue	= (void *)has_work_flag_enqueue,
	       .dispatch	= (void *)has_work_flag_dispatch,
	       .init		= (void *)has_work_flag_init,
	       .exit		= (void *)has_work_flag_exit,
	       .name		= "has_work_flag");
