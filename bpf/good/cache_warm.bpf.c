// SPDX-License-Identifier: GPL-2.0-only
/*
 * cache_warm: one queue, and a little patience for whoever was here last.
 *
 * A CPU looks at the first eight of the queue and prefers one that last ran on it. After
 * three such favours in a row it takes the first of the queue, so nobody is passed over
 * for more than a few slices.
 *
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE		0
#define MAX_CPUS	1024
#define SLICE_NS	(3 * 1000 * 1000ULL)
#define LOOK		8
#define FAVOURS		3

static u32 favours[MAX_CPUS];

s32 BPF_STRUCT_OPS(cache_warm_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(cache_warm_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 idle;

	scx_bpf_dsq_insert(p, QUEUE, SLICE_NS, enq_flags);
	idle = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (idle >= 0)
		scx_bpf_kick_cpu(idle, SCX_KICK_IDLE);
}

static bool take_a_warm_one(s32 cpu)
{
	struct task_struct *p;
	u32 looked = 0;

	bpf_for_each(scx_dsq, p, QUEUE, 0) {
		if (scx_bpf_task_cpu(p) == cpu &&
		    scx_bpf_dsq_move(BPF_FOR_EACH_ITER, p, SCX_DSQ_LOCAL, 0))
			return true;
		if (++looked >= LOOK)
			break;
	}
	return false;
}

void BPF_STRUCT_OPS(cache_warm_dispatch, s32 cpu, struct task_struct *prev)
{
	u32 *done = MEMBER_VPTR(favours, [cpu]);

	if (!done)
		return;
	if (*done < FAVOURS && take_a_warm_one(cpu)) {
		*done += 1;
		return;
	}
	*done = 0;
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(cache_warm_init)
{
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(cache_warm,
	       .select_cpu	= (void *)cache_warm_select_cpu,
	       .enqueue		= (void *)cache_warm_enqueue,
	       .dispatch	= (void *)cache_warm_dispatch,
	       .init		= (void *)cache_warm_init,
	       .name		= "cache_warm");
