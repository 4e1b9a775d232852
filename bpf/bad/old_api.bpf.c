// SPDX-License-Identifier: GPL-2.0-only
/*
 * old_api: written for the first kernels with sched_ext.
 *
 * Failure mode: scx_bpf_dispatch() and scx_bpf_consume() were renamed in 6.13 to
 * scx_bpf_dsq_insert() and scx_bpf_dsq_move_to_local(), and the old names are gone
 * from the headers. (A testbed that maps the old names will find nothing wrong with it.)
 *
 * class: load-failure
 * expect: reject compile-error
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE	0

void BPF_STRUCT_OPS(old_api_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dispatch(p, QUEUE, SCX_SLICE_DFL, enq_flags);
}

void BPF_STRUCT_OPS(old_api_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_consume(QUEUE);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(old_api_init)
{
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(old_api,
	       .enqueue		= (void *)old_api_enqueue,
	       .dispatch	= (void *)old_api_dispatch,
	       .init		= (void *)old_api_init,
	       .name		= "old_api");
