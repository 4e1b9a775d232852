// SPDX-License-Identifier: GPL-2.0-only
/*
 * opens_twice_a_second: batches wake-ups to save energy.
 *
 * Failure mode: idle CPUs are left asleep, and a timer looks into the queue twice a second
 * and wakes them for whoever waits. On a busy machine nobody notices, since busy CPUs look
 * by themselves; on a quiet one every wake-up takes up to half a second, and the kernel's
 * watchdog is content with that.
 *
 * class: latency
 * expect: reject canary-starved,latency-collapse,kworker-starved,rcu-starved,task-starved,throughput-collapse,idle-while-runnable,crawl
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE		0
#define SLICE_NS	(5 * 1000 * 1000ULL)
#define PERIOD_NS	(500 * 1000 * 1000ULL)

struct bell {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct bell);
} bells SEC(".maps");

static u32 nr_cpus;

static int ring(void *map, u32 *key, struct bell *bell)
{
	u32 cpu;

	bpf_for(cpu, 0, nr_cpus)
		if (scx_bpf_dsq_nr_queued(QUEUE))
			scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
	bpf_timer_start(&bell->timer, PERIOD_NS, 0);
	return 0;
}

s32 BPF_STRUCT_OPS(opens_twice_a_second_select_cpu, struct task_struct *p, s32 prev_cpu,
		   u64 wake_flags)
{
	return prev_cpu;
}

void BPF_STRUCT_OPS(opens_twice_a_second_enqueue, struct task_struct *p, u64 enq_flags)
{
	/* The kernel's own must not wait. */
	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
	else
		scx_bpf_dsq_insert(p, QUEUE, SLICE_NS, enq_flags);
}

void BPF_STRUCT_OPS(opens_twice_a_second_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(opens_twice_a_second_init)
{
	u32 key = 0;
	struct bell *bell = bpf_map_lookup_elem(&bells, &key);

	if (!bell)
		return -ENOENT;
	nr_cpus = scx_bpf_nr_cpu_ids();
	bpf_timer_init(&bell->timer, &bells, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&bell->timer, ring);
	bpf_timer_start(&bell->timer, PERIOD_NS, 0);
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(opens_twice_a_second,
	       .select_cpu	= (void *)opens_twice_a_second_select_cpu,
	       .enqueue		= (void *)opens_twice_a_second_enqueue,
	       .dispatch	= (void *)opens_twice_a_second_dispatch,
	       .init		= (void *)opens_twice_a_second_init,
	       .name		= "opens_twice_a_second");
