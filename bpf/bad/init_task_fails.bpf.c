// SPDX-License-Identifier: GPL-2.0-only
/*
 * init_task_fails: has no room for the tasks that are already there.
 *
 * Failure mode: a table of sixteen entries, one for each task. Attaching begins
 * well and ends at the seventeenth task with -E2BIG from ops.init_task().
 *
 * class: init-failure
 * expect: reject init-failed
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, s32);
	__type(value, u64);
} tasks SEC(".maps");

s32 BPF_STRUCT_OPS(init_task_fails_init_task, struct task_struct *p,
		   struct scx_init_task_args *args)
{
	s32 pid = p->pid;
	u64 zero = 0;

	return bpf_map_update_elem(&tasks, &pid, &zero, BPF_ANY);
}

void BPF_STRUCT_OPS(init_task_fails_exit_task, struct task_struct *p,
		    struct scx_exit_task_args *args)
{
	s32 pid = p->pid;

	bpf_map_delete_elem(&tasks, &pid);
}

SCX_OPS_DEFINE(init_task_fails,
	       .init_task	= (void *)init_task_fails_init_task,
	       .exit_task	= (void *)init_task_fails_exit_task,
	       .name		= "init_task_fails");
