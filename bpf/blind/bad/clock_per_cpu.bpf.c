// SPDX-License-Identifier: GPL-2.0-only
/*
 * clock_per_cpu: a vtime queue and clock per CPU; wake-ups join the shortest queue, idle CPUs steal.
 *
 * Failure mode: vtime values of different CPUs are compared as they are. A CPU with few or niced tasks has a fast
 * clock (nice 19: 68 times), one with many a slow clock. A task that moves from a fast one (clock 20 s) to a slow one
 * (clock 5 s) waits until the slow clock has caught up: with 4 hogs there 60 s without CPU. A task the other way
 * loses nothing. The difference grows with run time; on equally loaded CPUs there is none. CFS subtracts min_vruntime
 * for this reason.
 *
 * class: unfair
 * expect: reject
 * needs: 2 CPUs; 20 s of run time, CPUs loaded unequally (niced or pinned hogs), tasks that change their CPU
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define DSQ_BASE	0x5000
#define SLICE_NS	(5ULL * 1000 * 1000)
#define MAX_CPUS	256

static u64 clock_of[MAX_CPUS];

s32 BPF_STRUCT_OPS(clock_per_cpu_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);
	s32 i, nr = scx_bpf_nr_cpu_ids(), len, best_len = 1 << 30;

	if (is_idle) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
		return cpu;
	}

	/* All busy: join the shortest queue. */
	bpf_for(i, 0, nr) {
		if (!bpf_cpumask_test_cpu(i, p->cpus_ptr))
			continue;
		len = scx_bpf_dsq_nr_queued(DSQ_BASE + i);
		if (len < best_len) {
			best_len = len;
			cpu = i;
		}
	}
	return cpu;
}

void BPF_STRUCT_OPS(clock_per_cpu_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu = scx_bpf_task_cpu(p), idle;
	u64 vtime = p->scx.dsq_vtime, now = clock_of[cpu & (MAX_CPUS - 1)];

	/* Don't let a sleeper save up more than one slice. */
	if (time_before(vtime, now - SLICE_NS))
		vtime = now - SLICE_NS;
	scx_bpf_dsq_insert_vtime(p, DSQ_BASE + cpu, SLICE_NS, vtime, enq_flags);
	idle = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (idle >= 0)
		scx_bpf_kick_cpu(idle, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(clock_per_cpu_dispatch, s32 cpu, struct task_struct *prev)
{
	u32 i, nr = scx_bpf_nr_cpu_ids();

	if (scx_bpf_dsq_move_to_local(DSQ_BASE + cpu, 0))
		return;
	/* Only an idle CPU steals. */
	if (prev && (prev->scx.flags & SCX_TASK_QUEUED))
		return;
	bpf_for(i, 1, nr) {
		if (scx_bpf_dsq_move_to_local(DSQ_BASE + ((u32)cpu + i) % nr, 0))
			return;
	}
}

void BPF_STRUCT_OPS(clock_per_cpu_running, struct task_struct *p)
{
	u64 *now = &clock_of[scx_bpf_task_cpu(p) & (MAX_CPUS - 1)];

	if (time_before(*now, p->scx.dsq_vtime))
		*now = p->scx.dsq_vtime;
}

void BPF_STRUCT_OPS(clock_per_cpu_stopping, struct task_struct *p, bool runnable)
{
	u64 used = p->scx.slice < SLICE_NS ? SLICE_NS - p->scx.slice : 0;

	scx_bpf_task_set_dsq_vtime(p, p->scx.dsq_vtime + scale_by_task_weight_inverse(p, used));
}

void BPF_STRUCT_OPS(clock_per_cpu_enable, struct task_struct *p)
{
	scx_bpf_task_set_dsq_vtime(p, clock_of[scx_bpf_task_cpu(p) & (MAX_CPUS - 1)]);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(clock_per_cpu_init)
{
	s32 i, err, nr = scx_bpf_nr_cpu_ids();

	bpf_for(i, 0, nr) {
		err = scx_bpf_create_dsq(DSQ_BASE + i, -1);
		if (err)
			return err;
	}
	return 0;
}

void BPF_STRUCT_OPS(clock_per_cpu_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(clock_per_cpu,
	       .select_cpu	= (void *)clock_per_cpu_select_cpu,
	       .enqueue	= (void *)clock_per_cpu_enqueue,
	       .dispatch	= (void *)clock_per_cpu_dispatch,
	       .running	= (void *)clock_per_cpu_running,
	       .stopping	= (void *)clock_per_cpu_stopping,
	       .enable		= (void *)clock_per_cpu_enable,
	       .init		= (void *)clock_per_cpu_init,
	       .exit		= (void *)clock_per_cpu_exit,
	       .name		= "clock_per_cpu");
