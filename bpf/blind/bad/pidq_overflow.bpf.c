// SPDX-License-Identifier: GPL-2.0-only
/*
 * pidq_overflow: FIFO kept in a BPF queue of pids, like scx_qmap, with room for 64 entries.
 *
 * Failure mode: the result of bpf_map_push_elem() is ignored. When more than 64 tasks wait, the next one is dropped:
 * it stays runnable and is never dispatched again (stall after 10 s). With fewer waiting tasks nothing is wrong. The
 * queue was sized from an idle desktop.
 *
 * class: lost-task
 * expect: reject
 * needs: more than 64 runnable tasks that are not pinned (+ CPUs)
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SLICE_NS	(5ULL * 1000 * 1000)

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 64);
	__type(value, u32);
} fifo SEC(".maps");

s32 BPF_STRUCT_OPS(pidq_overflow_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(pidq_overflow_enqueue, struct task_struct *p, u64 enq_flags)
{
	u32 pid = p->pid;
	s32 cpu;

	if (p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}

	/* Run queues are a few tasks long in practice: 64 entries are plenty. */
	bpf_map_push_elem(&fifo, &pid, 0);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(pidq_overflow_dispatch, s32 cpu, struct task_struct *prev)
{
	struct task_struct *p;
	s32 target;
	u32 pid, i;

	bpf_for(i, 0, 8) {
		if (bpf_map_pop_elem(&fifo, &pid))
			return;
		p = bpf_task_from_pid(pid);
		if (!p)
			continue;
		target = cpu;
		if (!bpf_cpumask_test_cpu(cpu, p->cpus_ptr) || is_migration_disabled(p))
			target = scx_bpf_task_cpu(p);
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL_ON | target, SLICE_NS, 0);
		bpf_task_release(p);
		if (target == cpu)
			return;
	}
}

void BPF_STRUCT_OPS(pidq_overflow_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(pidq_overflow,
	       .select_cpu	= (void *)pidq_overflow_select_cpu,
	       .enqueue	= (void *)pidq_overflow_enqueue,
	       .dispatch	= (void *)pidq_overflow_dispatch,
	       .exit		= (void *)pidq_overflow_exit,
	       .timeout_ms	= 10000,
	       .name		= "pidq_overflow");
