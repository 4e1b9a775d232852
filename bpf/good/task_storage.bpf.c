// SPDX-License-Identifier: GPL-2.0-only
/*
 * task_storage: short bursts first, with memory per task.
 *
 * Task storage keeps how long each task runs between two stops, as a moving
 * average. The queue is ordered by "queued at" plus that average: of two tasks
 * that arrive together the shorter one goes first, and nobody waits for ever
 * because time passes and the average is bounded.
 *
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE		0
#define SLICE_NS	(5 * 1000 * 1000ULL)

struct history {
	u64 started_at;
	u64 average_run;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct history);
} histories SEC(".maps");

static struct history *history_of(struct task_struct *p)
{
	return bpf_task_storage_get(&histories, p, NULL, 0);
}

s32 BPF_STRUCT_OPS(task_storage_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(task_storage_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct history *history = history_of(p);
	u64 key = scx_bpf_now();

	if (history)
		key += history->average_run;
	scx_bpf_dsq_insert_vtime(p, QUEUE, SLICE_NS, key, enq_flags);
}

void BPF_STRUCT_OPS(task_storage_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

void BPF_STRUCT_OPS(task_storage_running, struct task_struct *p)
{
	struct history *history = history_of(p);

	if (history)
		history->started_at = scx_bpf_now();
}

void BPF_STRUCT_OPS(task_storage_stopping, struct task_struct *p, bool runnable)
{
	struct history *history = history_of(p);
	u64 ran;

	if (!history)
		return;
	ran = scx_bpf_now() - history->started_at;
	/* Alone on its CPU a task may run for many slices; that is no reason to wait. */
	if (ran > 4 * SLICE_NS)
		ran = 4 * SLICE_NS;
	history->average_run = (3 * history->average_run + ran) / 4;
}

s32 BPF_STRUCT_OPS(task_storage_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	if (!bpf_task_storage_get(&histories, p, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE))
		return -ENOMEM;
	return 0;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(task_storage_init)
{
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(task_storage,
	       .select_cpu	= (void *)task_storage_select_cpu,
	       .enqueue		= (void *)task_storage_enqueue,
	       .dispatch	= (void *)task_storage_dispatch,
	       .running		= (void *)task_storage_running,
	       .stopping	= (void *)task_storage_stopping,
	       .init_task	= (void *)task_storage_init_task,
	       .init		= (void *)task_storage_init,
	       .name		= "task_storage");
