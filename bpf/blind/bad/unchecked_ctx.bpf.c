// SPDX-License-Identifier: GPL-2.0-only
/*
 * unchecked_ctx: vtime scheduler with per-task state in task storage.
 *
 * Failure mode: the pointer that bpf_task_storage_get() returns is used without a NULL test in ops.stopping; the
 * verifier refuses the object ("invalid mem access 'map_value_or_null'"), so it never loads. The author is sure that
 * init_task made it.
 *
 * class: load-failure
 * expect: reject
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x71
#define SLICE_NS	(5ULL * 1000 * 1000)

struct task_ctx {
	u64 started;
	u64 total;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_ctx);
} ctxs SEC(".maps");

void BPF_STRUCT_OPS(unchecked_ctx_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert_vtime(p, SHARED_DSQ, SLICE_NS, p->scx.dsq_vtime, enq_flags);
}

void BPF_STRUCT_OPS(unchecked_ctx_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

void BPF_STRUCT_OPS(unchecked_ctx_running, struct task_struct *p)
{
	struct task_ctx *t = bpf_task_storage_get(&ctxs, p, 0, 0);

	t->started = bpf_ktime_get_ns();
}

void BPF_STRUCT_OPS(unchecked_ctx_stopping, struct task_struct *p, bool runnable)
{
	/* init_task created the entry, it is always there. */
	struct task_ctx *t = bpf_task_storage_get(&ctxs, p, 0, 0);

	t->total += bpf_ktime_get_ns() - t->started;
	scx_bpf_task_set_dsq_vtime(p, t->total);
}

s32 BPF_STRUCT_OPS(unchecked_ctx_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	if (!bpf_task_storage_get(&ctxs, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE))
		return -ENOMEM;
	return 0;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(unchecked_ctx_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(unchecked_ctx_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(unchecked_ctx,
	       .enqueue		= (void *)unchecked_ctx_enqueue,
	       .dispatch	= (void *)unchecked_ctx_dispatch,
	       .running		= (void *)unchecked_ctx_running,
	       .stopping	= (void *)unchecked_ctx_stopping,
	       .init_task	= (void *)unchecked_ctx_init_task,
	       .init		= (void *)unchecked_ctx_init,
	       .exit		= (void *)unchecked_ctx_exit,
	       .name		= "unchecked_ctx");
