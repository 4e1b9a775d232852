// SPDX-License-Identifier: GPL-2.0-only
/*
 * crawls_in_dispatch: thinks for 3 ms before each decision.
 *
 * Failure mode: every task does run in the end, no callback is long enough for a
 * lock-up detector, and so no watchdog speaks; but most of the machine's time is
 * spent in the scheduler. Only a comparison of the work done shows it.
 *
 * class: throughput
 * expect: reject crawl,no-progress,throughput-collapse,latency-collapse,canary-starved
 * lint: lint-long-loop
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE		0
#define THINK_NS	(3 * 1000 * 1000ULL)
#define LOOPS		(1 << 20)

static int is_it_time(u32 i, void *until)
{
	return bpf_ktime_get_ns() >= *(u64 *)until;
}

static int again(u32 i, void *until)
{
	bpf_loop(LOOPS, is_it_time, until, 0);
	return bpf_ktime_get_ns() >= *(u64 *)until;
}

void BPF_STRUCT_OPS(crawls_in_dispatch_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, QUEUE, 2 * 1000 * 1000ULL, enq_flags);
}

void BPF_STRUCT_OPS(crawls_in_dispatch_dispatch, s32 cpu, struct task_struct *prev)
{
	u64 until = bpf_ktime_get_ns() + THINK_NS;

	bpf_loop(LOOPS, again, &until, 0);
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(crawls_in_dispatch_init)
{
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(crawls_in_dispatch,
	       .enqueue		= (void *)crawls_in_dispatch_enqueue,
	       .dispatch	= (void *)crawls_in_dispatch_dispatch,
	       .init		= (void *)crawls_in_dispatch_init,
	       .name		= "crawls_in_dispatch");
