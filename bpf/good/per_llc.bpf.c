// SPDX-License-Identifier: GPL-2.0-only
/*
 * per_llc: a queue for each last-level cache.
 *
 * A task waits in the queue of the cache that it last ran under, and a CPU under that
 * cache that is idle is woken for it, else one that is idle elsewhere. A CPU takes from
 * its own queue first and helps the others when there is nothing to do at home. The
 * kernel's numbering of CPUs by topology says who shares a cache.
 *
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define MAX_CPUS	1024
#define SLICE_NS	(5 * 1000 * 1000ULL)

static u32 llc_of[MAX_CPUS];
static u32 nr_llcs;

static u32 home_of(s32 cpu)
{
	u32 *llc = MEMBER_VPTR(llc_of, [cpu]);

	return llc ? *llc : 0;
}

s32 BPF_STRUCT_OPS(per_llc_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(per_llc_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 idle;

	scx_bpf_dsq_insert(p, home_of(scx_bpf_task_cpu(p)), SLICE_NS, enq_flags);

	idle = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (idle >= 0)
		scx_bpf_kick_cpu(idle, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(per_llc_dispatch, s32 cpu, struct task_struct *prev)
{
	u32 home = home_of(cpu);
	u32 i;

	bpf_for(i, 0, nr_llcs)
		if (scx_bpf_dsq_move_to_local((home + i) % nr_llcs, 0))
			return;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(per_llc_init)
{
	u32 cpu, i;

	nr_llcs = 1;
	bpf_for(cpu, 0, scx_bpf_nr_cpu_ids()) {
		struct scx_cid_topo topo = {};
		u32 *llc = MEMBER_VPTR(llc_of, [cpu]);
		s32 cid = scx_bpf_cpu_to_cid(cpu);

		if (!llc || cid < 0)
			continue;
		scx_bpf_cid_topo(cid, &topo, sizeof(topo));
		if (topo.llc_idx < 0 || topo.llc_idx >= MAX_CPUS)
			continue;
		*llc = topo.llc_idx;
		if (*llc >= nr_llcs)
			nr_llcs = *llc + 1;
	}
	bpf_for(i, 0, nr_llcs) {
		s32 err = scx_bpf_create_dsq(i, NUMA_NO_NODE);

		if (err)
			return err;
	}
	return 0;
}

SCX_OPS_DEFINE(per_llc,
	       .select_cpu	= (void *)per_llc_select_cpu,
	       .enqueue		= (void *)per_llc_enqueue,
	       .dispatch	= (void *)per_llc_dispatch,
	       .init		= (void *)per_llc_init,
	       .name		= "per_llc");
