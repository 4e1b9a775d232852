// SPDX-License-Identifier: GPL-2.0-only
/*
 * ctx_freed_early: per-task deadline state in a hash map, freed in ops.disable.
 *
 * Failure mode: init_task and exit_task are a pair, enable and disable another; here the state is made in init_task
 * and freed in disable. A task that turns SCHED_FIFO (chrt, or for a moment through a PI mutex with a real-time
 * waiter) and comes back has no state, and the first time it is queued the scheduler ejects itself with
 * scx_bpf_error. Loads without real-time tasks never show it.
 *
 * class: integrity
 * expect: reject
 * needs: a task that changes to SCHED_FIFO/RR and back (chrt, PI futex)
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0xa3
#define SLICE_NS	(5ULL * 1000 * 1000)

struct task_ctx {
	u64 ran;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u32);
	__type(value, struct task_ctx);
} ctxs SEC(".maps");

s32 BPF_STRUCT_OPS(ctx_freed_early_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(ctx_freed_early_enqueue, struct task_struct *p, u64 enq_flags)
{
	u32 pid = p->pid;
	struct task_ctx *t = bpf_map_lookup_elem(&ctxs, &pid);
	s32 cpu;

	if (!t) {
		scx_bpf_error("no context for %s[%d]", p->comm, p->pid);
		return;
	}
	t->ran++;
	scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(ctx_freed_early_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

s32 BPF_STRUCT_OPS(ctx_freed_early_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	struct task_ctx zero = {};
	u32 pid = p->pid;

	if (bpf_map_update_elem(&ctxs, &pid, &zero, BPF_ANY))
		return -ENOMEM;
	return 0;
}

void BPF_STRUCT_OPS(ctx_freed_early_disable, struct task_struct *p)
{
	u32 pid = p->pid;

	/* The task leaves sched_ext: drop its state. */
	bpf_map_delete_elem(&ctxs, &pid);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(ctx_freed_early_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(ctx_freed_early_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(ctx_freed_early,
	       .select_cpu	= (void *)ctx_freed_early_select_cpu,
	       .enqueue	= (void *)ctx_freed_early_enqueue,
	       .dispatch	= (void *)ctx_freed_early_dispatch,
	       .init_task	= (void *)ctx_freed_early_init_task,
	       .disable	= (void *)ctx_freed_early_disable,
	       .init		= (void *)ctx_freed_early_init,
	       .exit		= (void *)ctx_freed_early_exit,
	       .name		= "ctx_freed_early");
