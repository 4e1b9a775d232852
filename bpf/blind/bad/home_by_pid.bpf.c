// SPDX-License-Identifier: GPL-2.0-only
/*
 * home_by_pid: per-CPU queues; the home CPU of a task is its pid modulo the number of CPUs.
 *
 * Failure mode: the home CPU ignores the affinity mask. A user task pinned elsewhere (taskset, cpuset) sits in the
 * queue of a CPU that may not run it; nobody else drains that queue, so it never runs (stall after 5 s). Every other
 * pinned task is hit on 2 CPUs, 3 of 4 on 4 CPUs. Per-CPU kernel threads are handled, so the author's desktop works.
 *
 * class: affinity
 * expect: reject
 * needs: 2 CPUs
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SLICE_NS	(5ULL * 1000 * 1000)
#define DSQ_BASE	0x1000

static u32 nr_cpus = 1;

static u32 home_cpu(const struct task_struct *p)
{
	return (u32)p->pid % nr_cpus;
}

s32 BPF_STRUCT_OPS(home_by_pid_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	return home_cpu(p);
}

void BPF_STRUCT_OPS(home_by_pid_enqueue, struct task_struct *p, u64 enq_flags)
{
	u32 cpu = home_cpu(p);

	/* Kernel threads bound to a CPU must stay there. */
	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}

	/* A stable home gives good cache locality and needs no balancing state. */
	scx_bpf_dsq_insert(p, DSQ_BASE + cpu, SLICE_NS, enq_flags);
	scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(home_by_pid_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(DSQ_BASE + cpu, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(home_by_pid_init)
{
	s32 i, err;

	nr_cpus = scx_bpf_nr_cpu_ids();
	if (!nr_cpus)
		nr_cpus = 1;
	bpf_for(i, 0, nr_cpus) {
		err = scx_bpf_create_dsq(DSQ_BASE + i, -1);
		if (err)
			return err;
	}
	return 0;
}

void BPF_STRUCT_OPS(home_by_pid_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(home_by_pid,
	       .select_cpu	= (void *)home_by_pid_select_cpu,
	       .enqueue		= (void *)home_by_pid_enqueue,
	       .dispatch	= (void *)home_by_pid_dispatch,
	       .init		= (void *)home_by_pid_init,
	       .exit		= (void *)home_by_pid_exit,
	       .timeout_ms	= 5000,
	       .name		= "home_by_pid");
