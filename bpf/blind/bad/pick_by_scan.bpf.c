// SPDX-License-Identifier: GPL-2.0-only
/*
 * pick_by_scan: dispatch looks at all waiting tasks to run the one that has waited longest relative to its weight.
 *
 * Failure mode: every dispatch walks the whole queue twice, taking the queue lock for each step, on all CPUs at once.
 * 10 waiting tasks: 1-2 us, unnoticed. 500 waiting tasks: some 100 us per context switch and all CPUs on one lock; a
 * message-passing load with many groups falls to a small part of its throughput, wake-ups are late. Nobody starves.
 *
 * class: throughput
 * expect: reject
 * needs: several hundred runnable tasks
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0xac
#define SLICE_NS	(3ULL * 1000 * 1000)

s32 BPF_STRUCT_OPS(pick_by_scan_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(pick_by_scan_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	scx_bpf_task_set_dsq_vtime(p, bpf_ktime_get_ns());
	scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(pick_by_scan_dispatch, s32 cpu, struct task_struct *prev)
{
	u64 now = bpf_ktime_get_ns(), score, best = 0;
	struct task_struct *p;
	s32 pid = 0;

	/* First pass: find the task with the best waiting time x weight. */
	bpf_for_each(scx_dsq, p, SHARED_DSQ, 0) {
		if (!bpf_cpumask_test_cpu(cpu, p->cpus_ptr))
			continue;
		score = (now - p->scx.dsq_vtime) * p->scx.weight + 1;
		if (score > best) {
			best = score;
			pid = p->pid;
		}
	}
	/* Second pass: take it out. */
	bpf_for_each(scx_dsq, p, SHARED_DSQ, 0) {
		if (p->pid == pid && scx_bpf_dsq_move(BPF_FOR_EACH_ITER, p, SCX_DSQ_LOCAL, 0))
			return;
	}
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(pick_by_scan_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(pick_by_scan_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(pick_by_scan,
	       .select_cpu	= (void *)pick_by_scan_select_cpu,
	       .enqueue	= (void *)pick_by_scan_enqueue,
	       .dispatch	= (void *)pick_by_scan_dispatch,
	       .init		= (void *)pick_by_scan_init,
	       .exit		= (void *)pick_by_scan_exit,
	       .name		= "pick_by_scan");
