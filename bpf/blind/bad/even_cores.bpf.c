// SPDX-License-Identifier: GPL-2.0-only
/*
 * even_cores: takes odd CPU numbers for hyper-threads and keeps ordinary work off them.
 *
 * Failure mode: the sibling map is guessed (cpu | 1 is "the hyper-thread") and odd CPUs take only work that is pinned
 * to them. Half of the machine idles while tasks queue: throughput of a saturated load is one half, for ever, on
 * every machine without SMT, and also on SMT machines where the second thread is worth 20-30 %.
 *
 * class: topology
 * expect: reject
 * needs: 2 CPUs
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x30
#define SLICE_NS	(4ULL * 1000 * 1000)

static bool may_use_primary(struct task_struct *p)
{
	bool found = false;
	s32 i, nr = scx_bpf_nr_cpu_ids();

	if (p->nr_cpus_allowed == 1)
		return false;
	bpf_for(i, 0, nr) {
		if (!(i & 1) && bpf_cpumask_test_cpu(i, p->cpus_ptr)) {
			found = true;
			break;
		}
	}
	return found;
}

s32 BPF_STRUCT_OPS(even_cores_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	s32 i, nr = scx_bpf_nr_cpu_ids(), pick = prev_cpu;

	if (!may_use_primary(p))
		return prev_cpu;

	/* Look for an idle physical core; the hyper-threads (odd numbers) only slow their sibling down. */
	bpf_for(i, 0, nr) {
		if ((i & 1) || !bpf_cpumask_test_cpu(i, p->cpus_ptr))
			continue;
		pick = i;
		if (scx_bpf_test_and_clear_cpu_idle(i)) {
			scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
			break;
		}
	}
	return pick;
}

void BPF_STRUCT_OPS(even_cores_enqueue, struct task_struct *p, u64 enq_flags)
{
	if (!may_use_primary(p)) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);
}

void BPF_STRUCT_OPS(even_cores_dispatch, s32 cpu, struct task_struct *prev)
{
	if (cpu & 1)
		return;
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(even_cores_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(even_cores_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(even_cores,
	       .select_cpu	= (void *)even_cores_select_cpu,
	       .enqueue		= (void *)even_cores_enqueue,
	       .dispatch	= (void *)even_cores_dispatch,
	       .init		= (void *)even_cores_init,
	       .exit		= (void *)even_cores_exit,
	       .name		= "even_cores");
