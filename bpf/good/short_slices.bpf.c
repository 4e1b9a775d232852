// SPDX-License-Identifier: GPL-2.0-only
/*
 * short_slices: a FIFO with slices of one millisecond.
 *
 * The global FIFO's cure for its waits: who waits behind four CPU hogs waits for
 * milliseconds, paid for with more switches. An idle CPU is woken for whoever is
 * queued.
 *
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE		0
#define SLICE_NS	(1000 * 1000ULL)

s32 BPF_STRUCT_OPS(short_slices_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(short_slices_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 idle;

	scx_bpf_dsq_insert(p, QUEUE, SLICE_NS, enq_flags);
	idle = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (idle >= 0)
		scx_bpf_kick_cpu(idle, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(short_slices_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(short_slices_init)
{
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(short_slices,
	       .select_cpu	= (void *)short_slices_select_cpu,
	       .enqueue		= (void *)short_slices_enqueue,
	       .dispatch	= (void *)short_slices_dispatch,
	       .init		= (void *)short_slices_init,
	       .name		= "short_slices");
