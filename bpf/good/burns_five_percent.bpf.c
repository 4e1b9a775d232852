// SPDX-License-Identifier: GPL-2.0-only
/*
 * burns_five_percent: global_fifo that keeps a twentieth of each busy CPU for itself.
 *
 * A control for benchmarks: it decides what global_fifo decides, so it is as safe, and at
 * each tick it spins for a twentieth of the time since the CPU's last tick, so all work is
 * 5 % less, and a little more for the tick. Talking tasks show it best: chance alone moves
 * their round trips by 4 % between single runs, and CPU hogs' work by more than 5 %.
 *
 * expect: pass
 * worse: talk.roundtrips of crawl than global_fifo
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define SHARE		20
#define LONGEST_NS	(20 * 1000 * 1000ULL)	/* a CPU that idled owes nothing for it */
#define LOOPS		50000	/* more than LONGEST_NS / SHARE has room for */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} last_tick SEC(".maps");

void BPF_STRUCT_OPS(burns_five_percent_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

void BPF_STRUCT_OPS(burns_five_percent_tick, struct task_struct *p)
{
	u64 now = bpf_ktime_get_ns(), until;
	u32 key = 0, i;
	u64 *last = bpf_map_lookup_elem(&last_tick, &key);

	if (!last)
		return;
	until = now + (now - *last < LONGEST_NS ? now - *last : LONGEST_NS) / SHARE;
	*last = now;
	bpf_for(i, 0, LOOPS)
		if (bpf_ktime_get_ns() >= until)
			break;
}

SCX_OPS_DEFINE(burns_five_percent,
	       .enqueue	= (void *)burns_five_percent_enqueue,
	       .tick	= (void *)burns_five_percent_tick,
	       .name	= "burns_five_percent");
