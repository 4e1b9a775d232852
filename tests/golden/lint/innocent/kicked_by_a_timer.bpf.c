// SPDX-License-Identifier: GPL-2.0-only
/* An infinite slice that a timer's kick ends, idle tracking kept. */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

struct tick { struct bpf_timer timer; };
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(makicked_by_a_timer_entries, 1);
	__type(key, u32);
	__type(value, struct tick);
} ticks SEC(".maps");

static u32 nr_cpus;
static int tick(void *map, u32 *key, struct bpf_timer *timer)
{
	s32 cpu;
	bpf_for(cpu, 0, nr_cpus)
		scx_bpf_kick_cpu(cpu, SCX_KICK_PREEMPT);
	bpf_timer_start(timer, 5000000, 0);
	return 0;
}

void BPF_STRUCT_OPS(kicked_by_a_timer_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_INF, enq_flags);
}

void BPF_STRUCT_OPS(kicked_by_a_timer_update_idle, s32 cpu, bool idle)
{
	if (idle)
		scx_bpf_test_and_clear_cpu_idle(cpu);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(kicked_by_a_timer_init)
{
	u32 zero = 0;
	struct tick *one = bpf_map_lookup_elem(&ticks, &zero);
	if (!one)
		return -ENOENT;
	nr_cpus = scx_bpf_nr_cpu_ids();
	bpf_timer_init(&one->timer, &ticks, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&one->timer, tick);
	return bpf_timer_start(&one->timer, 5000000, 0);
}

SCX_OPS_DEFINE(kicked_by_a_timer, .enqueue = (void *)kicked_by_a_timer_enqueue, .update_idle = (void *)kicked_by_a_timer_update_idle, .init = (void *)kicked_by_a_timer_init,
	       .flags = SCX_OPS_KEEP_BUILTIN_IDLE, .name = "kicked_by_a_timer");
