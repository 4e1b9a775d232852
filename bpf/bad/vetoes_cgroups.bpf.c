// SPDX-License-Identifier: GPL-2.0-only
/*
 * vetoes_cgroups: knows as many cgroups as there were.
 *
 * Failure mode: a table with room for the cgroups that were there when it was attached and
 * two more. After that ops.cgroup_init() fails, and with it every mkdir in the cgroup tree:
 * no service starts, no container. The scheduler itself stays enabled and schedules well.
 *
 * class: fork-or-cgroup
 * expect: reject cgroup-vetoed,step-failed,fork-vetoed,unhealthy-after-detach
 * policy: full
 * needs: new cgroups
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE		0
#define SLICE_NS	(5 * 1000 * 1000ULL)
#define SPARE		2

static bool attached;
static u32 spare = SPARE;

s32 BPF_STRUCT_OPS(vetoes_cgroups_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(vetoes_cgroups_enqueue, struct task_struct *p, u64 enq_flags)
{
	/* The first task that is queued: all cgroups of the start are known. */
	attached = true;
	scx_bpf_dsq_insert(p, QUEUE, SLICE_NS, enq_flags);
}

void BPF_STRUCT_OPS(vetoes_cgroups_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(vetoes_cgroups_cgroup_init, struct cgroup *group,
			     struct scx_cgroup_init_args *args)
{
	if (!attached)
		return 0;
	if (!spare)
		return -ENOSPC;
	spare--;
	return 0;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(vetoes_cgroups_init)
{
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(vetoes_cgroups,
	       .select_cpu	= (void *)vetoes_cgroups_select_cpu,
	       .enqueue		= (void *)vetoes_cgroups_enqueue,
	       .dispatch	= (void *)vetoes_cgroups_dispatch,
	       .cgroup_init	= (void *)vetoes_cgroups_cgroup_init,
	       .init		= (void *)vetoes_cgroups_init,
	       .name		= "vetoes_cgroups");
