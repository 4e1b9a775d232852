// SPDX-License-Identifier: GPL-2.0-only
/*
 * favours_names: a list of programs that matter, and all the others.
 *
 * Failure mode: whoever is called like a program on the list is served in turn.
 * Everybody else is served newest first, and the oldest of them starves. Tests
 * that use the names on the list are content.
 *
 * class: integrity
 * expect: reject runnable-task-stall,task-starved,canary-starved,kworker-starved
 * lint: lint-by-name,lint-newest-first
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE	0

static bool matters(struct task_struct *p)
{
	return !bpf_strncmp(p->comm, 8, "schbench") || !bpf_strncmp(p->comm, 4, "sshd");
}

void BPF_STRUCT_OPS(favours_names_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 key = (1ULL << 62) - scx_bpf_now();

	if (matters(p))
		key = 0;
	scx_bpf_dsq_insert_vtime(p, QUEUE, SCX_SLICE_DFL, key, enq_flags);
}

void BPF_STRUCT_OPS(favours_names_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(favours_names_init)
{
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(favours_names,
	       .enqueue		= (void *)favours_names_enqueue,
	       .dispatch	= (void *)favours_names_dispatch,
	       .init		= (void *)favours_names_init,
	       .name		= "favours_names");
