// SPDX-License-Identifier: GPL-2.0-only
/*
 * layered: three layers by weight, served four to three to one.
 *
 * A task belongs to the layer of its weight: heavier than usual, usual, lighter. Each
 * CPU goes through a round of eight turns, in which each layer is asked first at least
 * once; a layer with nothing to run gives its turn to the others. The round is per CPU,
 * so that a task that is pinned to one has its turn there whatever the others do.
 *
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

enum { HEAVY, USUAL, LIGHT, LAYERS };

#define MAX_CPUS	1024
#define SLICE_NS	(4 * 1000 * 1000ULL)
#define ROUND		8

static const u8 first_in_turn[ROUND] = {
	HEAVY, USUAL, HEAVY, LIGHT, HEAVY, USUAL, HEAVY, USUAL,
};
static u32 turns[MAX_CPUS];

static u64 layer_of(const struct task_struct *p)
{
	if (p->scx.weight == 100)
		return USUAL;
	return p->scx.weight > 100 ? HEAVY : LIGHT;
}

s32 BPF_STRUCT_OPS(layered_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(layered_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, layer_of(p), SLICE_NS, enq_flags);
}

void BPF_STRUCT_OPS(layered_dispatch, s32 cpu, struct task_struct *prev)
{
	u32 *turn = MEMBER_VPTR(turns, [cpu]);
	u32 first, i;

	if (!turn)
		return;
	first = first_in_turn[*turn % ROUND];
	*turn += 1;
	bpf_for(i, 0, LAYERS)
		if (scx_bpf_dsq_move_to_local((first + i) % LAYERS, 0))
			return;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(layered_init)
{
	u32 i;

	bpf_for(i, 0, LAYERS) {
		s32 err = scx_bpf_create_dsq(i, NUMA_NO_NODE);

		if (err)
			return err;
	}
	return 0;
}

SCX_OPS_DEFINE(layered,
	       .select_cpu	= (void *)layered_select_cpu,
	       .enqueue		= (void *)layered_enqueue,
	       .dispatch	= (void *)layered_dispatch,
	       .init		= (void *)layered_init,
	       .name		= "layered");
