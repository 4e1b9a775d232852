// SPDX-License-Identifier: GPL-2.0-only
/*
 * two_bands: bands for woken and for preempted tasks, vtime in each; batch gets every fourth turn at least.
 *
 * class: integrity
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define FAST_DSQ	0x107
#define BATCH_DSQ	0x108
#define SLICE_NS	(4ULL * 1000 * 1000)
#define MAX_FAST_RUN	3

static u64 vtime_now;
static u32 fast_run;

s32 BPF_STRUCT_OPS(two_bands_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(two_bands_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 vtime = p->scx.dsq_vtime, dsq = BATCH_DSQ;
	s32 cpu;

	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	/* A sleeper keeps at most one slice of credit. */
	if (time_before(vtime, vtime_now - SLICE_NS))
		vtime = vtime_now - SLICE_NS;
	/* Fast band: it has just slept and is not ahead of its share. */
	if ((enq_flags & SCX_ENQ_WAKEUP) && !time_after(vtime, vtime_now))
		dsq = FAST_DSQ;
	scx_bpf_dsq_insert_vtime(p, dsq, SLICE_NS, vtime, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(two_bands_dispatch, s32 cpu, struct task_struct *prev)
{
	if (fast_run >= MAX_FAST_RUN && scx_bpf_dsq_move_to_local(BATCH_DSQ, 0)) {
		fast_run = 0;
		return;
	}
	if (scx_bpf_dsq_move_to_local(FAST_DSQ, 0)) {
		fast_run++;
		return;
	}
	if (scx_bpf_dsq_move_to_local(BATCH_DSQ, 0))
		fast_run = 0;
}

struct exec_mark {
	u64 at;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct exec_mark);
} marks SEC(".maps");

void BPF_STRUCT_OPS(two_bands_running, struct task_struct *p)
{
	struct exec_mark *m = bpf_task_storage_get(&marks, p, 0, 0);

	if (m)
		m->at = p->se.sum_exec_runtime;
	if (time_before(vtime_now, p->scx.dsq_vtime))
		vtime_now = p->scx.dsq_vtime;
}

void BPF_STRUCT_OPS(two_bands_stopping, struct task_struct *p, bool runnable)
{
	struct exec_mark *m = bpf_task_storage_get(&marks, p, 0, 0);
	u64 used;

	if (!m)
		return;
	/* The kernel may refill or cut the slice, so charge what it has measured. */
	used = time_delta(p->se.sum_exec_runtime, m->at);
	scx_bpf_task_set_dsq_vtime(p, p->scx.dsq_vtime + scale_by_task_weight_inverse(p, used));
}

void BPF_STRUCT_OPS(two_bands_enable, struct task_struct *p)
{
	scx_bpf_task_set_dsq_vtime(p, vtime_now);
}

s32 BPF_STRUCT_OPS(two_bands_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	return bpf_task_storage_get(&marks, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE) ? 0 : -ENOMEM;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(two_bands_init)
{
	return scx_bpf_create_dsq(FAST_DSQ, -1) ?: scx_bpf_create_dsq(BATCH_DSQ, -1);
}

void BPF_STRUCT_OPS(two_bands_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(two_bands,
	       .select_cpu	= (void *)two_bands_select_cpu,
	       .enqueue	= (void *)two_bands_enqueue,
	       .dispatch	= (void *)two_bands_dispatch,
	       .running	= (void *)two_bands_running,
	       .stopping	= (void *)two_bands_stopping,
	       .enable		= (void *)two_bands_enable,
	       .init_task	= (void *)two_bands_init_task,
	       .init		= (void *)two_bands_init,
	       .exit		= (void *)two_bands_exit,
	       .timeout_ms	= 15000,
	       .name		= "two_bands");
