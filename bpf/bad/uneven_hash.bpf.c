// SPDX-License-Identifier: GPL-2.0-only
/*
 * uneven_hash: each task has a home CPU for ever, by a hash that is not even.
 *
 * Failure mode: three of four processes share CPU 0 and one of four has CPU 1 for
 * itself, since homes come from the process id and nobody balances. All CPUs are
 * busy and everybody has a turn, so no watchdog, no latency and no throughput
 * shows it; one of four equal users of the machine gets three times the work done.
 *
 * class: unfair
 * expect: reject unfair-share,idle-while-runnable,throughput-collapse
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

static s32 home_of(const struct task_struct *p)
{
	s32 home = p->pid % 4 ? 0 : 1;

	if (p->nr_cpus_allowed == 1 || is_migration_disabled(p))
		return -1;
	return bpf_cpumask_test_cpu(home, p->cpus_ptr) ? home : -1;
}

s32 BPF_STRUCT_OPS(uneven_hash_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	s32 home = home_of(p);

	return home < 0 ? prev_cpu : home;
}

void BPF_STRUCT_OPS(uneven_hash_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 home = home_of(p);

	scx_bpf_dsq_insert(p, home < 0 ? SCX_DSQ_LOCAL : SCX_DSQ_LOCAL_ON | home, SCX_SLICE_DFL,
			   enq_flags);
}

SCX_OPS_DEFINE(uneven_hash,
	       .select_cpu	= (void *)uneven_hash_select_cpu,
	       .enqueue		= (void *)uneven_hash_enqueue,
	       .name		= "uneven_hash");
