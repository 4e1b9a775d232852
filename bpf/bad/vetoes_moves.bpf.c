// SPDX-License-Identifier: GPL-2.0-only
/*
 * vetoes_moves: a task stays in the cgroup in which it was born.
 *
 * Failure mode: the scheduler keeps figures for each cgroup and never wrote the code that
 * carries a task's share from one to the other, so ops.cgroup_prep_move() refuses. Every
 * write to cgroup.procs fails: no service manager, no container can start anything. The
 * scheduler itself stays enabled and schedules well.
 *
 * class: fork-or-cgroup
 * expect: reject cgroup-vetoed
 * policy: full
 * scenario: cgroup-churn
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

void BPF_STRUCT_OPS(vetoes_moves_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

s32 BPF_STRUCT_OPS(vetoes_moves_cgroup_prep_move, struct task_struct *p, struct cgroup *from,
		   struct cgroup *to)
{
	return -EOPNOTSUPP;
}

SCX_OPS_DEFINE(vetoes_moves,
	       .enqueue			= (void *)vetoes_moves_enqueue,
	       .cgroup_prep_move	= (void *)vetoes_moves_cgroup_prep_move,
	       .name			= "vetoes_moves");
