// SPDX-License-Identifier: GPL-2.0-only
/*
 * deadline_32bit: earliest deadline first with deadlines in 32 bits to save space.
 *
 * Failure mode: the absolute deadline is cut to 32 bits of nanoseconds, which wrap every 4.29 s. Tasks that wait at
 * the wrap have deadlines near the maximum, everybody queued afterwards has small ones: the unlucky half of the hogs
 * gets nothing for up to 4.3 s, then another half is drawn. No stall, long averages look fair; latency tails of
 * seconds at every wrap.
 *
 * class: late
 * expect: reject
 * needs: 15 s of run time with at least twice as many hogs as CPUs
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x8d
#define SLICE_NS	(5ULL * 1000 * 1000)

struct task_ctx {
	u32 deadline;
	u32 nr_enqueued;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_ctx);
} ctxs SEC(".maps");

s32 BPF_STRUCT_OPS(deadline_32bit_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(deadline_32bit_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct task_ctx *t;
	u32 rel = SLICE_NS;
	s32 cpu;

	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	t = bpf_task_storage_get(&ctxs, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!t) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}

	/* Relative deadline: 1 to 40 ms, shorter for heavier tasks. Nanoseconds of an interval fit in 32 bits. */
	if (p->scx.weight)
		rel = SLICE_NS * 100 / p->scx.weight;
	if (rel > 40000000)
		rel = 40000000;
	t->deadline = bpf_ktime_get_ns() + rel;
	t->nr_enqueued++;
	scx_bpf_dsq_insert_vtime(p, SHARED_DSQ, SLICE_NS, t->deadline, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(deadline_32bit_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(deadline_32bit_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(deadline_32bit_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(deadline_32bit,
	       .select_cpu	= (void *)deadline_32bit_select_cpu,
	       .enqueue	= (void *)deadline_32bit_enqueue,
	       .dispatch	= (void *)deadline_32bit_dispatch,
	       .init		= (void *)deadline_32bit_init,
	       .exit		= (void *)deadline_32bit_exit,
	       .name		= "deadline_32bit");
