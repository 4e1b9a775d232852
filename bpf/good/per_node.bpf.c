// SPDX-License-Identifier: GPL-2.0-only
/*
 * per_node: a queue for each memory node.
 *
 * A task waits in the queue of the node that it last ran on. A CPU takes from its
 * own node first and helps the others only when there is nothing to do at home. On a
 * machine with one node it is a global FIFO with a shorter slice.
 *
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define SLICE_NS	(5 * 1000 * 1000ULL)

static u32 nr_nodes;

void BPF_STRUCT_OPS(per_node_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 node = scx_bpf_cpu_node(scx_bpf_task_cpu(p));
	s32 idle;

	scx_bpf_dsq_insert(p, node, SLICE_NS, enq_flags);

	idle = scx_bpf_pick_idle_cpu_node(p->cpus_ptr, node, 0);
	if (idle >= 0)
		scx_bpf_kick_cpu(idle, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(per_node_dispatch, s32 cpu, struct task_struct *prev)
{
	u32 home = scx_bpf_cpu_node(cpu);
	u32 i;

	bpf_for(i, 0, nr_nodes)
		if (scx_bpf_dsq_move_to_local((home + i) % nr_nodes, 0))
			return;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(per_node_init)
{
	u32 i;

	nr_nodes = scx_bpf_nr_node_ids();
	bpf_for(i, 0, nr_nodes) {
		s32 err = scx_bpf_create_dsq(i, NUMA_NO_NODE);

		if (err)
			return err;
	}
	return 0;
}

SCX_OPS_DEFINE(per_node,
	       .enqueue		= (void *)per_node_enqueue,
	       .dispatch	= (void *)per_node_dispatch,
	       .init		= (void *)per_node_init,
	       .flags		= SCX_OPS_BUILTIN_IDLE_PER_NODE,
	       .name		= "per_node");
