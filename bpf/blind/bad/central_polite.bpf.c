// SPDX-License-Identifier: GPL-2.0-only
/*
 * central_polite: one CPU (CPU 0) makes all scheduling decisions for the others.
 *
 * Failure mode: CPU 0 also runs ordinary tasks with 20 ms slices and is only kicked with SCX_KICK_IDLE, which does
 * nothing while it is busy. With a hog on CPU 0 every other CPU that runs out of work, and every wake-up, waits up to
 * 20 ms for the next decision: idle CPUs beside a full queue, pipe and fork loads ten to a hundred times slower.
 * scx_central keeps its CPU free and preempts; copies drop that.
 *
 * class: throughput
 * expect: reject
 * needs: 2 CPUs; more with 4
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define QUEUE_DSQ	0x8b
#define DSQ_BASE	0x4000
#define SLICE_NS	(20ULL * 1000 * 1000)
#define CENTRAL_CPU	0

s32 BPF_STRUCT_OPS(central_polite_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	/* Wake-ups go to the central CPU so that it sees them first. */
	return CENTRAL_CPU;
}

void BPF_STRUCT_OPS(central_polite_enqueue, struct task_struct *p, u64 enq_flags)
{
	if (p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	scx_bpf_dsq_insert(p, QUEUE_DSQ, SLICE_NS, enq_flags);
	scx_bpf_kick_cpu(CENTRAL_CPU, SCX_KICK_IDLE);
}

static bool give_work(s32 cpu)
{
	struct task_struct *p;
	bool given = false;

	bpf_for_each(scx_dsq, p, QUEUE_DSQ, 0) {
		if (!bpf_cpumask_test_cpu(cpu, p->cpus_ptr))
			continue;
		if (scx_bpf_dsq_move(BPF_FOR_EACH_ITER, p, DSQ_BASE + cpu, 0)) {
			given = true;
			break;
		}
	}
	return given;
}

void BPF_STRUCT_OPS(central_polite_dispatch, s32 cpu, struct task_struct *prev)
{
	s32 i, nr = scx_bpf_nr_cpu_ids();

	if (cpu != CENTRAL_CPU) {
		/* Take what the central CPU has assigned, or ask it for more. */
		if (!scx_bpf_dsq_move_to_local(DSQ_BASE + cpu, 0))
			scx_bpf_kick_cpu(CENTRAL_CPU, SCX_KICK_IDLE);
		return;
	}

	bpf_for(i, 0, nr) {
		if (i == CENTRAL_CPU || scx_bpf_dsq_nr_queued(DSQ_BASE + i))
			continue;
		if (give_work(i))
			scx_bpf_kick_cpu(i, SCX_KICK_IDLE);
	}
	scx_bpf_dsq_move_to_local(QUEUE_DSQ, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(central_polite_init)
{
	s32 i, err, nr = scx_bpf_nr_cpu_ids();

	err = scx_bpf_create_dsq(QUEUE_DSQ, -1);
	if (err)
		return err;
	bpf_for(i, 0, nr) {
		err = scx_bpf_create_dsq(DSQ_BASE + i, -1);
		if (err)
			return err;
	}
	return 0;
}

void BPF_STRUCT_OPS(central_polite_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(central_polite,
	       .select_cpu	= (void *)central_polite_select_cpu,
	       .enqueue	= (void *)central_polite_enqueue,
	       .dispatch	= (void *)central_polite_dispatch,
	       .init		= (void *)central_polite_init,
	       .exit		= (void *)central_polite_exit,
	       .name		= "central_polite");
