// SPDX-License-Identifier: GPL-2.0-only
/*
 * forgets_cancelled_forks: every task that ends has begun.
 *
 * Failure mode: ops.enable() makes a task's context, ops.exit_task() expects it. A fork
 * that is cancelled half-way, since the parent is killed just then, was initialised and
 * never enabled; its exit finds no context, takes that for corruption and gives up.
 *
 * class: fork-or-cgroup
 * expect: reject self-ejected
 * policy: full
 * scenario: refused-forks
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, u64);
} contexts SEC(".maps");

UEI_DEFINE(uei);

void BPF_STRUCT_OPS(forgets_cancelled_forks_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

void BPF_STRUCT_OPS(forgets_cancelled_forks_enable, struct task_struct *p)
{
	bpf_task_storage_get(&contexts, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
}

void BPF_STRUCT_OPS(forgets_cancelled_forks_exit_task, struct task_struct *p,
		    struct scx_exit_task_args *args)
{
	if (!bpf_task_storage_get(&contexts, p, 0, 0))
		scx_bpf_error("%s[%d] ends and has no context", p->comm, p->pid);
}

void BPF_STRUCT_OPS(forgets_cancelled_forks_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(forgets_cancelled_forks,
	       .enqueue		= (void *)forgets_cancelled_forks_enqueue,
	       .enable		= (void *)forgets_cancelled_forks_enable,
	       .exit_task	= (void *)forgets_cancelled_forks_exit_task,
	       .exit		= (void *)forgets_cancelled_forks_exit,
	       .name		= "forgets_cancelled_forks");
