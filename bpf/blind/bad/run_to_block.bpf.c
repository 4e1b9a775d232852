// SPDX-License-Identifier: GPL-2.0-only
/*
 * run_to_block: a task that finds an idle CPU may run there until it blocks.
 *
 * Failure mode: the direct-dispatch path gives SCX_SLICE_INF. A CPU hog that once got an idle CPU never gives it
 * back; when every CPU is held so, all other tasks wait for ever (stall after 10 s), and a task pinned to a CPU with
 * such a hog waits even with other CPUs idle. Two hogs on one CPU do not alternate. People read "no one waits, so no
 * slice is needed" and forget that somebody may come later.
 *
 * class: slice
 * expect: reject
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x20
#define SLICE_NS	(10ULL * 1000 * 1000)

s32 BPF_STRUCT_OPS(run_to_block_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	/* The CPU is idle, so there is no competitor and no reason to tick the task off it. */
	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SCX_SLICE_INF, 0);
	return cpu;
}

void BPF_STRUCT_OPS(run_to_block_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(run_to_block_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(run_to_block_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(run_to_block_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(run_to_block,
	       .select_cpu	= (void *)run_to_block_select_cpu,
	       .enqueue		= (void *)run_to_block_enqueue,
	       .dispatch	= (void *)run_to_block_dispatch,
	       .init		= (void *)run_to_block_init,
	       .exit		= (void *)run_to_block_exit,
	       .timeout_ms	= 10000,
	       .name		= "run_to_block");
