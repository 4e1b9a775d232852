// SPDX-License-Identifier: GPL-2.0-only
/*
 * sticky_local: minimal scheduler that keeps every task on the CPU it was on.
 *
 * Failure mode: select_cpu returns prev_cpu and enqueue uses the local queue; nothing ever balances. All children of
 * one shell stay on the shell's CPU: N hogs share one CPU while all others are idle for ever (throughput 1/N, wake
 * latency N x 5 ms). Locality taken as the only goal; on a machine with load from many places it looks fine.
 *
 * class: idle-cpu
 * expect: reject
 * needs: 2 CPUs
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SLICE_NS	(5ULL * 1000 * 1000)

s32 BPF_STRUCT_OPS(sticky_local_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	/* Cache affinity: the previous CPU is the best one if the task may still use it. */
	if (bpf_cpumask_test_cpu(prev_cpu, p->cpus_ptr))
		return prev_cpu;
	return scx_bpf_pick_any_cpu(p->cpus_ptr, 0);
}

void BPF_STRUCT_OPS(sticky_local_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
}

void BPF_STRUCT_OPS(sticky_local_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(sticky_local,
	       .select_cpu	= (void *)sticky_local_select_cpu,
	       .enqueue		= (void *)sticky_local_enqueue,
	       .exit		= (void *)sticky_local_exit,
	       .name		= "sticky_local");
