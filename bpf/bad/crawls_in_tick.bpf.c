// SPDX-License-Identifier: GPL-2.0-only
/*
 * crawls_in_tick: spends most of each timer tick in the tick.
 *
 * Failure mode: bookkeeping that is far too long, at each tick of each busy CPU.
 * Decisions are good and quick, waits are short, but the tasks get a quarter of the
 * CPU that they seem to have.
 *
 * class: throughput
 * expect: reject crawl,throughput-collapse,latency-collapse
 * lint: lint-long-loop
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define WORK_NS	(3 * 1000 * 1000ULL)
#define LOOPS	(1 << 20)

static int is_it_time(u32 i, void *until)
{
	return bpf_ktime_get_ns() >= *(u64 *)until;
}

void BPF_STRUCT_OPS(crawls_in_tick_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

void BPF_STRUCT_OPS(crawls_in_tick_tick, struct task_struct *p)
{
	u64 until = bpf_ktime_get_ns() + WORK_NS;

	bpf_loop(LOOPS, is_it_time, &until, 0);
}

SCX_OPS_DEFINE(crawls_in_tick,
	       .enqueue	= (void *)crawls_in_tick_enqueue,
	       .tick	= (void *)crawls_in_tick_tick,
	       .name	= "crawls_in_tick");
