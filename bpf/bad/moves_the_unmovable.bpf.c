// SPDX-License-Identifier: GPL-2.0-only
/*
 * moves_the_unmovable: believes the mask and forgets the lock.
 *
 * Failure mode: the CPU is looked up in `cpus_mask`, which tells where a task may run in
 * general. A task that has migration disabled may run where it is and nowhere else, and
 * says so in `cpus_ptr` only. The flag that asks for such tasks is set, since "we handle
 * them all"; the kernel ejects the scheduler at the first that is sent away.
 *
 * class: affinity
 * expect: reject scheduler-error
 * scenario: affinity
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define SLICE_NS	(5 * 1000 * 1000ULL)

static u32 nr_cpus;
static u32 next_cpu;

void BPF_STRUCT_OPS(moves_the_unmovable_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu = __sync_fetch_and_add(&next_cpu, 1) % nr_cpus;

	if (!bpf_cpumask_test_cpu(cpu, &p->cpus_mask))
		cpu = scx_bpf_task_cpu(p);
	scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL_ON | cpu, SLICE_NS, enq_flags);
	scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(moves_the_unmovable_init)
{
	nr_cpus = scx_bpf_nr_cpu_ids();
	return 0;
}

SCX_OPS_DEFINE(moves_the_unmovable,
	       .enqueue	= (void *)moves_the_unmovable_enqueue,
	       .init	= (void *)moves_the_unmovable_init,
	       .flags	= SCX_OPS_ENQ_MIGRATION_DISABLED,
	       .name	= "moves_the_unmovable");
