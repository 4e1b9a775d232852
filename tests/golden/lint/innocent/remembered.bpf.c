// SPDX-License-Identifier: GPL-2.0-only
/* A task that is remembered and found again. */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(maremembered_entries, 4096);
	__type(value, s32);
} waiting SEC(".maps");

void BPF_STRUCT_OPS(remembered_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 pid = p->pid;
	if (bpf_map_push_elem(&waiting, &pid, 0))
		scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

void BPF_STRUCT_OPS(remembered_dispatch, s32 cpu, struct task_struct *prev)
{
	struct task_struct *p;
	s32 pid;
	if (bpf_map_pop_elem(&waiting, &pid))
		return;
	p = bpf_task_from_pid(pid);
	if (!p)
		return;
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, 0);
	bpf_task_release(p);
}

SCX_OPS_DEFINE(remembered, .enqueue = (void *)remembered_enqueue, .dispatch = (void *)remembered_dispatch, .name = "remembered");
