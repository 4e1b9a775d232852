// SPDX-License-Identifier: GPL-2.0-only
/*
 * forgets_after_a_while: well for forty seconds.
 *
 * Failure mode: a cache that is never emptied, a counter that has run out: from its
 * fortieth second on the scheduler forgets every third process that comes to it. Until
 * then it is a FIFO like any other, and no test that ends sooner can tell. (A policy's
 * scenario must last that long.)
 *
 * class: late
 * expect: reject runnable-task-stall,task-starved,canary-starved,kworker-starved
 * policy: full
 * needs: 40 s of run time
 * lint: lint-lost-task
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE		0
#define SLICE_NS	(5 * 1000 * 1000ULL)
#define WELL_NS		(40 * 1000 * 1000 * 1000ULL)

static u64 well_until;

s32 BPF_STRUCT_OPS(forgets_after_a_while_select_cpu, struct task_struct *p, s32 prev_cpu,
		   u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(forgets_after_a_while_enqueue, struct task_struct *p, u64 enq_flags)
{
	if (p->tgid % 3 == 1 && scx_bpf_now() > well_until)
		return;
	scx_bpf_dsq_insert(p, QUEUE, SLICE_NS, enq_flags);
}

void BPF_STRUCT_OPS(forgets_after_a_while_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(forgets_after_a_while_init)
{
	well_until = scx_bpf_now() + WELL_NS;
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(forgets_after_a_while,
	       .select_cpu	= (void *)forgets_after_a_while_select_cpu,
	       .enqueue		= (void *)forgets_after_a_while_enqueue,
	       .dispatch	= (void *)forgets_after_a_while_dispatch,
	       .init		= (void *)forgets_after_a_while_init,
	       .name		= "forgets_after_a_while");
