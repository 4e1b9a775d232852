// SPDX-License-Identifier: GPL-2.0-only
/*
 * dsq_id_clash: shared overflow queue plus one queue per CPU.
 *
 * Failure mode: the shared queue has id 0 and the per-CPU queues use the CPU number as id, so creating the queue of
 * CPU 0 gives -EEXIST: init fails on every machine and the scheduler is never enabled (the attach call itself may say
 * success). Copy and paste from two examples with different id schemes.
 *
 * class: init-failure
 * expect: reject
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0
#define SLICE_NS	(5ULL * 1000 * 1000)

void BPF_STRUCT_OPS(dsq_id_clash_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu = scx_bpf_task_cpu(p);

	if (p->nr_cpus_allowed == 1)
		scx_bpf_dsq_insert(p, cpu, SLICE_NS, enq_flags);
	else
		scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);
}

void BPF_STRUCT_OPS(dsq_id_clash_dispatch, s32 cpu, struct task_struct *prev)
{
	if (!scx_bpf_dsq_move_to_local(cpu, 0))
		scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(dsq_id_clash_init)
{
	s32 i, err, nr = scx_bpf_nr_cpu_ids();

	err = scx_bpf_create_dsq(SHARED_DSQ, -1);
	if (err)
		return err;

	/* One queue per CPU, the CPU number is the queue id. */
	bpf_for(i, 0, nr) {
		err = scx_bpf_create_dsq(i, -1);
		if (err)
			return err;
	}
	return 0;
}

void BPF_STRUCT_OPS(dsq_id_clash_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(dsq_id_clash,
	       .enqueue		= (void *)dsq_id_clash_enqueue,
	       .dispatch	= (void *)dsq_id_clash_dispatch,
	       .init		= (void *)dsq_id_clash_init,
	       .exit		= (void *)dsq_id_clash_exit,
	       .name		= "dsq_id_clash");
