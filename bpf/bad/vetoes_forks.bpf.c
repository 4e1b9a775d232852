// SPDX-License-Identifier: GPL-2.0-only
/*
 * vetoes_forks: remembers every new task and forgets none.
 *
 * Failure mode: a table with an entry for each forked task, never deleted. When it is
 * full ops.init_task() fails, and with it every fork() on the machine; the scheduler
 * itself stays enabled and schedules what is left.
 *
 * class: fork-or-cgroup
 * expect: reject fork-vetoed,unhealthy-after-detach
 * lint: lint-map-grows
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32);
	__type(key, u64);
	__type(value, u64);
} tasks SEC(".maps");

static u64 last_id;

s32 BPF_STRUCT_OPS(vetoes_forks_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	u64 id;

	if (!args->fork)
		return 0;
	id = __sync_fetch_and_add(&last_id, 1);
	return bpf_map_update_elem(&tasks, &id, &id, BPF_ANY);
}

SCX_OPS_DEFINE(vetoes_forks,
	       .init_task	= (void *)vetoes_forks_init_task,
	       .name		= "vetoes_forks");
