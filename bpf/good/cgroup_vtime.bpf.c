// SPDX-License-Identifier: GPL-2.0-only
/*
 * cgroup_vtime: fair among cgroups, by their weights.
 *
 * Each cgroup has a virtual time that runs slower the heavier it is, and its tasks are
 * queued by it: of two busy cgroups the one that is behind goes first, within one it is
 * first come, first served. A cgroup that was idle is behind by one slice at most, and one
 * that used much is ahead by twenty at most, so waits are bounded whatever the weights
 * are. Tasks of the root have its time and the usual weight.
 *
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE		0
#define SLICE_NS	(5 * 1000 * 1000ULL)
#define AHEAD_NS	(20 * SLICE_NS)

struct account {
	u64 vtime;
	u32 weight;
};

struct {
	__uint(type, BPF_MAP_TYPE_CGRP_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct account);
} accounts SEC(".maps");

/* The virtual time of the machine: that of the task which started last. */
static u64 machine_vtime;

s32 BPF_STRUCT_OPS(cgroup_vtime_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(cgroup_vtime_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct cgroup *group = scx_bpf_task_cgroup(p);
	u64 key = machine_vtime;

	if (group) {
		struct account *account = bpf_cgrp_storage_get(&accounts, group, NULL, 0);

		if (account) {
			if (time_before(account->vtime, key - SLICE_NS))
				account->vtime = key - SLICE_NS;
			key = account->vtime;
		}
		bpf_cgroup_release(group);
	}
	scx_bpf_dsq_insert_vtime(p, QUEUE, SLICE_NS, key, enq_flags);
}

void BPF_STRUCT_OPS(cgroup_vtime_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

/* Several CPUs may do this at once; the error is a slice, and soon forgotten. */
void BPF_STRUCT_OPS(cgroup_vtime_running, struct task_struct *p)
{
	if (time_before(machine_vtime, p->scx.dsq_vtime))
		machine_vtime = p->scx.dsq_vtime;
}

void BPF_STRUCT_OPS(cgroup_vtime_stopping, struct task_struct *p, bool runnable)
{
	struct cgroup *group = scx_bpf_task_cgroup(p);
	struct account *account;
	u64 left = p->scx.slice;
	u64 used = left < SLICE_NS ? SLICE_NS - left : 0;

	if (!group)
		return;
	account = bpf_cgrp_storage_get(&accounts, group, NULL, 0);
	if (account && account->weight) {
		account->vtime += used * 100 / account->weight;
		if (time_after(account->vtime, machine_vtime + AHEAD_NS))
			account->vtime = machine_vtime + AHEAD_NS;
	}
	bpf_cgroup_release(group);
}

void BPF_STRUCT_OPS(cgroup_vtime_cgroup_set_weight, struct cgroup *group, u32 weight)
{
	struct account *account = bpf_cgrp_storage_get(&accounts, group, NULL, 0);

	if (account)
		account->weight = weight;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(cgroup_vtime_cgroup_init, struct cgroup *group,
			     struct scx_cgroup_init_args *args)
{
	struct account *account = bpf_cgrp_storage_get(&accounts, group, NULL,
						       BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!account)
		return -ENOMEM;
	account->vtime = machine_vtime;
	account->weight = args->weight;
	return 0;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(cgroup_vtime_init)
{
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(cgroup_vtime,
	       .select_cpu		= (void *)cgroup_vtime_select_cpu,
	       .enqueue			= (void *)cgroup_vtime_enqueue,
	       .dispatch		= (void *)cgroup_vtime_dispatch,
	       .running			= (void *)cgroup_vtime_running,
	       .stopping		= (void *)cgroup_vtime_stopping,
	       .cgroup_set_weight	= (void *)cgroup_vtime_cgroup_set_weight,
	       .cgroup_init		= (void *)cgroup_vtime_cgroup_init,
	       .init			= (void *)cgroup_vtime_init,
	       .name			= "cgroup_vtime");
