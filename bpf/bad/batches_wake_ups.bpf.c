// SPDX-License-Identifier: GPL-2.0-only
/*
 * batches_wake_ups: opens the door for a moment, and then not for a while.
 *
 * Failure mode: to save energy wake-ups are collected: the queue is looked into for 20 ms,
 * and then not for 400. Meanwhile whoever runs goes on and idle CPUs stay asleep, so every
 * wake-up takes up to four tenths of a second, on a quiet machine too. No watchdog is that
 * strict.
 *
 * class: latency
 * expect: reject canary-starved,latency-collapse,kworker-starved,rcu-starved,idle-while-runnable,throughput-collapse,crawl
 * scenario: idle-cpus
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE		0
#define MS		(1000 * 1000ULL)
#define SLICE_NS	(5 * MS)
#define OPEN_NS		(20 * MS)
#define CLOSED_NS	(400 * MS)

struct door {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct door);
} doors SEC(".maps");

static u32 nr_cpus;
static u64 open_until;

static int open(void *map, u32 *key, struct door *door)
{
	u32 cpu;

	open_until = scx_bpf_now() + OPEN_NS;
	bpf_for(cpu, 0, nr_cpus)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
	bpf_timer_start(&door->timer, OPEN_NS + CLOSED_NS, 0);
	return 0;
}

s32 BPF_STRUCT_OPS(batches_wake_ups_select_cpu, struct task_struct *p, s32 prev_cpu,
		   u64 wake_flags)
{
	return prev_cpu;
}

void BPF_STRUCT_OPS(batches_wake_ups_enqueue, struct task_struct *p, u64 enq_flags)
{
	/* The kernel's own must not wait. */
	if (p->flags & PF_KTHREAD)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
	else
		scx_bpf_dsq_insert(p, QUEUE, SLICE_NS, enq_flags);
}

void BPF_STRUCT_OPS(batches_wake_ups_dispatch, s32 cpu, struct task_struct *prev)
{
	if (time_before(scx_bpf_now(), open_until))
		scx_bpf_dsq_move_to_local(QUEUE, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(batches_wake_ups_init)
{
	u32 key = 0;
	struct door *door = bpf_map_lookup_elem(&doors, &key);

	if (!door)
		return -ENOENT;
	nr_cpus = scx_bpf_nr_cpu_ids();
	bpf_timer_init(&door->timer, &doors, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&door->timer, open);
	bpf_timer_start(&door->timer, CLOSED_NS, 0);
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(batches_wake_ups,
	       .select_cpu	= (void *)batches_wake_ups_select_cpu,
	       .enqueue		= (void *)batches_wake_ups_enqueue,
	       .dispatch	= (void *)batches_wake_ups_dispatch,
	       .init		= (void *)batches_wake_ups_init,
	       .name		= "batches_wake_ups");
