// SPDX-License-Identifier: GPL-2.0-only
/* A CPU that was chosen before. */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

struct task_ctx { s32 cpu; u64 runs; };
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_ctx);
} contexts SEC(".maps");

s32 BPF_STRUCT_OPS(chosen_before_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	return bpf_task_storage_get(&contexts, p, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE) ? 0 : -ENOMEM;
}

s32 BPF_STRUCT_OPS(chosen_before_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);
	struct task_ctx *context = bpf_task_storage_get(&contexts, p, NULL, 0);
	if (context)
		context->cpu = cpu;
	return cpu;
}

void BPF_STRUCT_OPS(chosen_before_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct task_ctx *context = bpf_task_storage_get(&contexts, p, NULL, 0);
	if (context)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL_ON | context->cpu, SCX_SLICE_DFL, enq_flags);
	else
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SCX_SLICE_DFL, enq_flags);
}

SCX_OPS_DEFINE(chosen_before, .select_cpu = (void *)chosen_before_select_cpu, .enqueue = (void *)chosen_before_enqueue,
	       .init_task = (void *)chosen_before_init_task, .name = "chosen_before");
