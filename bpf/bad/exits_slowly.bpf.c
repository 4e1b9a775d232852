// SPDX-License-Identifier: GPL-2.0-only
/*
 * exits_slowly: takes eight seconds to say goodbye.
 *
 * Failure mode: a clean-up in ops.exit() that is far too long. Until it is over the
 * state stays "disabling", nobody can attach another scheduler, and who asked for
 * the detach waits in the kernel where no signal reaches it.
 *
 * class: exit-path
 * expect: reject slow-detach,detach-failed,unhealthy-after-detach,soft-lockup,hung-task
 * lint: lint-exit-unrecorded,lint-long-loop
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define LOOPS		(1 << 23)
#define SECOND_NS	(1000 * 1000 * 1000ULL)

static int is_it_time(u32 i, void *until)
{
	return bpf_ktime_get_ns() >= *(u64 *)until;
}

static int again(u32 i, void *until)
{
	bpf_loop(LOOPS, is_it_time, until, 0);
	return bpf_ktime_get_ns() >= *(u64 *)until;
}

void BPF_STRUCT_OPS(exits_slowly_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

void BPF_STRUCT_OPS_SLEEPABLE(exits_slowly_exit, struct scx_exit_info *ei)
{
	u64 until = bpf_ktime_get_ns() + 8 * SECOND_NS;

	bpf_loop(LOOPS, again, &until, 0);
}

SCX_OPS_DEFINE(exits_slowly,
	       .enqueue	= (void *)exits_slowly_enqueue,
	       .exit	= (void *)exits_slowly_exit,
	       .name	= "exits_slowly");
