// SPDX-License-Identifier: GPL-2.0-only
/*
 * timer_storm: FIFO with a 25 us timer that makes every CPU look for better work.
 *
 * Failure mode: a 25 us timer preempts every CPU, idle or not, contended or not: some 30 000 IPIs and context
 * switches per second and CPU. Useful work drops by a third to two thirds (more in a guest, where an IPI is an exit),
 * idle CPUs never sleep. Nothing starves. The comment follows microsecond-scheduling papers, which use hardware
 * support.
 *
 * class: throughput
 * expect: reject
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x8a
#define SLICE_NS	(5ULL * 1000 * 1000)
#define PERIOD_NS	25000

struct beat {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct beat);
} beat_map SEC(".maps");

s32 BPF_STRUCT_OPS(timer_storm_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(timer_storm_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(timer_storm_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

static int on_beat(void *map, int *key, struct bpf_timer *timer)
{
	s32 i, nr = scx_bpf_nr_cpu_ids();

	/* Microsecond-scale preemption: no task holds a CPU longer than one beat while another waits. */
	bpf_for(i, 0, nr)
		scx_bpf_kick_cpu(i, SCX_KICK_PREEMPT);
	bpf_timer_start(timer, PERIOD_NS, 0);
	return 0;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(timer_storm_init)
{
	struct beat *b;
	u32 key = 0;
	s32 err;

	err = scx_bpf_create_dsq(SHARED_DSQ, -1);
	if (err)
		return err;
	b = bpf_map_lookup_elem(&beat_map, &key);
	if (!b)
		return -ESRCH;
	bpf_timer_init(&b->timer, &beat_map, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&b->timer, on_beat);
	return bpf_timer_start(&b->timer, PERIOD_NS, 0);
}

void BPF_STRUCT_OPS(timer_storm_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(timer_storm,
	       .select_cpu	= (void *)timer_storm_select_cpu,
	       .enqueue	= (void *)timer_storm_enqueue,
	       .dispatch	= (void *)timer_storm_dispatch,
	       .init		= (void *)timer_storm_init,
	       .exit		= (void *)timer_storm_exit,
	       .name		= "timer_storm");
