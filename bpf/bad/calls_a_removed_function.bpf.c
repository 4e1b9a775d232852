// SPDX-License-Identifier: GPL-2.0-only
/*
 * calls_a_removed_function: the headers still have it, the kernel does not.
 *
 * Failure mode: scx_bpf_cpu_rq() was removed in Linux 7.3. The headers declare it
 * weakly for older kernels, so it compiles; without bpf_ksym_exists() before the
 * call the kernel does not load it.
 *
 * class: load-failure
 * expect: reject verifier-rejected
 * lint: lint-missing-kfunc
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

static u64 busy;

void BPF_STRUCT_OPS(calls_a_removed_function_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

void BPF_STRUCT_OPS(calls_a_removed_function_tick, struct task_struct *p)
{
	struct rq *rq = scx_bpf_cpu_rq(scx_bpf_task_cpu(p));

	if (rq)
		busy += rq->nr_running;
}

SCX_OPS_DEFINE(calls_a_removed_function,
	       .enqueue	= (void *)calls_a_removed_function_enqueue,
	       .tick	= (void *)calls_a_removed_function_tick,
	       .name	= "calls_a_removed_function");
