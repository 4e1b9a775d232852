// SPDX-License-Identifier: GPL-2.0-only
/*
 * shortest_queue: one queue per CPU; a task joins the shortest queue that it may use.
 *
 * Failure mode: the task is put into the queue of another CPU and that CPU is not kicked. If it is idle it stays
 * asleep until something else wakes it: wake-ups on a quiet machine take tens of milliseconds to seconds (stall
 * possible), with the task queued on an idle CPU. Ties go to CPU 0, so it shows for nearly everything that last ran
 * elsewhere. Under full load the fault hides.
 *
 * class: idle-cpu
 * expect: reject
 * needs: 2 CPUs; worst on a quiet machine
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define DSQ_BASE	0x3000
#define SLICE_NS	(5ULL * 1000 * 1000)

s32 BPF_STRUCT_OPS(shortest_queue_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	return prev_cpu;
}

void BPF_STRUCT_OPS(shortest_queue_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 i, nr = scx_bpf_nr_cpu_ids(), best = -1, len, best_len = 0;

	if (p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}

	/* Join the shortest queue: close to optimal without any global order. */
	bpf_for(i, 0, nr) {
		if (!bpf_cpumask_test_cpu(i, p->cpus_ptr))
			continue;
		len = scx_bpf_dsq_nr_queued(DSQ_BASE + i);
		if (best < 0 || len < best_len) {
			best = i;
			best_len = len;
		}
	}
	if (best < 0)
		best = scx_bpf_task_cpu(p);
	scx_bpf_dsq_insert(p, DSQ_BASE + best, SLICE_NS, enq_flags);
}

void BPF_STRUCT_OPS(shortest_queue_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(DSQ_BASE + cpu, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(shortest_queue_init)
{
	s32 i, err, nr = scx_bpf_nr_cpu_ids();

	bpf_for(i, 0, nr) {
		err = scx_bpf_create_dsq(DSQ_BASE + i, -1);
		if (err)
			return err;
	}
	return 0;
}

void BPF_STRUCT_OPS(shortest_queue_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(shortest_queue,
	       .select_cpu	= (void *)shortest_queue_select_cpu,
	       .enqueue	= (void *)shortest_queue_enqueue,
	       .dispatch	= (void *)shortest_queue_dispatch,
	       .init		= (void *)shortest_queue_init,
	       .exit		= (void *)shortest_queue_exit,
	       .name		= "shortest_queue");
