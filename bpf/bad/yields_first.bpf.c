// SPDX-License-Identifier: GPL-2.0-only
/*
 * yields_first: who gives way is rewarded.
 *
 * Failure mode: a task that yields has done the others a favour, so it goes to the head of
 * the queue, to have its turn back soon. But it is the next one there, and two tasks that
 * yield to each other have the machine for themselves.
 *
 * class: starvation
 * expect: reject runnable-task-stall,task-starved,canary-starved,kworker-starved
 * policy: full
 * scenario: yield-storm
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, bool);
} gave_way SEC(".maps");

bool BPF_STRUCT_OPS(yields_first_yield, struct task_struct *from, struct task_struct *to)
{
	bool *gave = bpf_task_storage_get(&gave_way, from, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (gave)
		*gave = true;
	return false;
}

void BPF_STRUCT_OPS(yields_first_enqueue, struct task_struct *p, u64 enq_flags)
{
	bool *gave = bpf_task_storage_get(&gave_way, p, 0, 0);

	if (gave && *gave) {
		*gave = false;
		enq_flags |= SCX_ENQ_HEAD;
	}
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

SCX_OPS_DEFINE(yields_first,
	       .yield	= (void *)yields_first_yield,
	       .enqueue	= (void *)yields_first_enqueue,
	       .name	= "yields_first");
