// SPDX-License-Identifier: GPL-2.0-only
/*
 * pairs_apart: splits the machine into pairs of CPUs ("cache domains"), each with its own queue.
 *
 * Failure mode: children are placed in the domain of their parent and no domain ever takes work from another:
 * everything started from one shell shares two CPUs, whatever the machine has. On 4 CPUs a saturated load reaches
 * half of the throughput, on 8 a quarter, with the rest idle. On 2 CPUs there is one domain and no fault.
 *
 * class: topology
 * expect: reject
 * needs: 4 CPUs
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define DSQ_BASE	0x6000
#define SLICE_NS	(5ULL * 1000 * 1000)

static s32 domain_of(s32 cpu)
{
	return cpu >> 1;
}

s32 BPF_STRUCT_OPS(pairs_apart_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	s32 i, cpu, first = domain_of(prev_cpu) << 1;

	/* Stay inside the cache domain. */
	bpf_for(i, 0, 2) {
		cpu = first + i;
		if (cpu >= (s32)scx_bpf_nr_cpu_ids() || !bpf_cpumask_test_cpu(cpu, p->cpus_ptr))
			continue;
		if (scx_bpf_test_and_clear_cpu_idle(cpu)) {
			scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
			return cpu;
		}
	}
	if (!bpf_cpumask_test_cpu(prev_cpu, p->cpus_ptr))
		return scx_bpf_pick_any_cpu(p->cpus_ptr, 0);
	return prev_cpu;
}

void BPF_STRUCT_OPS(pairs_apart_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 dom = domain_of(scx_bpf_task_cpu(p));

	if (p->nr_cpus_allowed < (s32)scx_bpf_nr_cpu_ids()) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	scx_bpf_dsq_insert(p, DSQ_BASE + dom, SLICE_NS, enq_flags);
	scx_bpf_kick_cpu(dom << 1, SCX_KICK_IDLE);
	if ((dom << 1) + 1 < (s32)scx_bpf_nr_cpu_ids())
		scx_bpf_kick_cpu((dom << 1) + 1, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(pairs_apart_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(DSQ_BASE + domain_of(cpu), 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(pairs_apart_init)
{
	s32 i, err, nr = scx_bpf_nr_cpu_ids();

	bpf_for(i, 0, nr) {
		err = scx_bpf_create_dsq(DSQ_BASE + i, -1);
		if (err)
			return err;
	}
	return 0;
}

void BPF_STRUCT_OPS(pairs_apart_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(pairs_apart,
	       .select_cpu	= (void *)pairs_apart_select_cpu,
	       .enqueue	= (void *)pairs_apart_enqueue,
	       .dispatch	= (void *)pairs_apart_dispatch,
	       .init		= (void *)pairs_apart_init,
	       .exit		= (void *)pairs_apart_exit,
	       .name		= "pairs_apart");
