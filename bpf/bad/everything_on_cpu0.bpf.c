// SPDX-License-Identifier: GPL-2.0-only
/*
 * everything_on_cpu0: a multiprocessor used as one processor.
 *
 * Failure mode: every task that may run on CPU 0 runs there, however many CPUs
 * idle beside it. Pinned tasks get their own CPU, so nobody ever stalls and the
 * kernel's watchdog has nothing to say.
 *
 * class: idle-cpu
 * expect: reject idle-while-runnable,crawl,throughput-collapse,latency-collapse
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

s32 BPF_STRUCT_OPS(everything_on_cpu0_select_cpu, struct task_struct *p, s32 prev_cpu,
		   u64 wake_flags)
{
	return bpf_cpumask_test_cpu(0, p->cpus_ptr) ? 0 : prev_cpu;
}

void BPF_STRUCT_OPS(everything_on_cpu0_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 queue = SCX_DSQ_LOCAL;

	if (bpf_cpumask_test_cpu(0, p->cpus_ptr) && !is_migration_disabled(p))
		queue = SCX_DSQ_LOCAL_ON | 0;
	scx_bpf_dsq_insert(p, queue, SCX_SLICE_DFL, enq_flags);
}

SCX_OPS_DEFINE(everything_on_cpu0,
	       .select_cpu	= (void *)everything_on_cpu0_select_cpu,
	       .enqueue		= (void *)everything_on_cpu0_enqueue,
	       .name		= "everything_on_cpu0");
