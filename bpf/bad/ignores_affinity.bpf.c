// SPDX-License-Identifier: GPL-2.0-only
/*
 * ignores_affinity: deals tasks to the CPUs in turn.
 *
 * Failure mode: SCX_DSQ_LOCAL_ON for a CPU that the task may not use. The kernel
 * ejects the scheduler at the first pinned task that is dealt to the wrong CPU.
 *
 * class: affinity
 * expect: reject scheduler-error
 * lint: lint-affinity-ignored
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

static u32 nr_cpus;
static u32 next_cpu;

void BPF_STRUCT_OPS(ignores_affinity_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 cpu = __sync_fetch_and_add(&next_cpu, 1) % nr_cpus;

	scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL_ON | cpu, SCX_SLICE_DFL, enq_flags);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(ignores_affinity_init)
{
	nr_cpus = scx_bpf_nr_cpu_ids();
	return 0;
}

SCX_OPS_DEFINE(ignores_affinity,
	       .enqueue		= (void *)ignores_affinity_enqueue,
	       .init		= (void *)ignores_affinity_init,
	       .name		= "ignores_affinity");
