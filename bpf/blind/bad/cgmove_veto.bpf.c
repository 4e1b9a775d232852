// SPDX-License-Identifier: GPL-2.0-only
/*
 * cgmove_veto: FIFO that refuses to let a task change its cgroup while the task runs.
 *
 * Failure mode: cgroup_prep_move answers -EBUSY for a running task. The usual mover is the task itself (echo $$ >
 * cgroup.procs, container start, systemd), which always runs: the write fails with EBUSY every time, so no service or
 * container starts. Nothing is ejected and all CPU work is fine. Nobody tells the author that callers don't retry.
 *
 * class: fork-or-cgroup
 * expect: reject
 * needs: cgroups with the cpu controller; a task that moves itself (or a running one) into one
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x85
#define SLICE_NS	(5ULL * 1000 * 1000)

s32 BPF_STRUCT_OPS(cgmove_veto_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(cgmove_veto_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(cgmove_veto_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

s32 BPF_STRUCT_OPS(cgmove_veto_cgroup_prep_move, struct task_struct *p, struct cgroup *from, struct cgroup *to)
{
	/* The accounting of a running task belongs to its old group; let the caller retry. */
	if (scx_bpf_task_running(p))
		return -EBUSY;
	return 0;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(cgmove_veto_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(cgmove_veto_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(cgmove_veto,
	       .select_cpu	= (void *)cgmove_veto_select_cpu,
	       .enqueue	= (void *)cgmove_veto_enqueue,
	       .dispatch	= (void *)cgmove_veto_dispatch,
	       .cgroup_prep_move	= (void *)cgmove_veto_cgroup_prep_move,
	       .init		= (void *)cgmove_veto_init,
	       .exit		= (void *)cgmove_veto_exit,
	       .name		= "cgmove_veto");
