// SPDX-License-Identifier: GPL-2.0-only
/* A lookup that can't fail. */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

struct task_ctx { s32 cpu; u64 runs; };
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_ctx);
} contexts SEC(".maps");

s32 BPF_STRUCT_OPS(lookup_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	return bpf_task_storage_get(&contexts, p, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE) ? 0 : -ENOMEM;
}

void BPF_STRUCT_OPS(lookup_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct task_ctx *context = bpf_task_storage_get(&contexts, p, NULL, 0);
	if (!context)
		return;
	context->runs++;
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

SCX_OPS_DEFINE(lookup, .enqueue = (void *)lookup_enqueue, .init_task = (void *)lookup_init_task, .name = "lookup");
