// SPDX-License-Identifier: GPL-2.0-only
/*
 * latency_deadline: deadline = vtime + time run since the last sleep, on one clock; frugal tasks go first.
 *
 * class: integrity
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x106
#define SLICE_NS	(5ULL * 1000 * 1000)
#define MAX_BURST_NS	(40ULL * 1000 * 1000)

struct task_ctx {
	u64 burst;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_ctx);
} ctxs SEC(".maps");

static u64 vtime_now;

struct vtime_of {
	u64 v;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct vtime_of);
} vtimes SEC(".maps");

s32 BPF_STRUCT_OPS(latency_deadline_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(latency_deadline_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct task_ctx *t = bpf_task_storage_get(&ctxs, p, 0, 0);
	struct vtime_of *v = bpf_task_storage_get(&vtimes, p, 0, 0);
	u64 burst;
	s32 cpu;

	if (!t || !v || ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1)) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	if (time_before(v->v, vtime_now - SLICE_NS))
		v->v = vtime_now - SLICE_NS;
	burst = scale_by_task_weight_inverse(p, t->burst);
	if (burst > MAX_BURST_NS)
		burst = MAX_BURST_NS;
	/* insert_vtime() stores the deadline in dsq_vtime, so the vtime lives in task storage. */
	scx_bpf_dsq_insert_vtime(p, SHARED_DSQ, SLICE_NS, v->v + burst, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(latency_deadline_dispatch, s32 cpu, struct task_struct *prev)
{
	if (scx_bpf_dsq_move_to_local(SHARED_DSQ, 0))
		return;
	/* Nobody waits: let it go on, with a slice of our length. */
	if (prev && (prev->scx.flags & SCX_TASK_QUEUED))
		scx_bpf_task_set_slice(prev, SLICE_NS);
}

void BPF_STRUCT_OPS(latency_deadline_running, struct task_struct *p)
{
	struct vtime_of *v = bpf_task_storage_get(&vtimes, p, 0, 0);

	if (v && time_before(vtime_now, v->v))
		vtime_now = v->v;
}

void BPF_STRUCT_OPS(latency_deadline_stopping, struct task_struct *p, bool runnable)
{
	struct task_ctx *t = bpf_task_storage_get(&ctxs, p, 0, 0);
	struct vtime_of *v = bpf_task_storage_get(&vtimes, p, 0, 0);
	u64 used = p->scx.slice < SLICE_NS ? SLICE_NS - p->scx.slice : 0;

	if (!t || !v)
		return;
	v->v += scale_by_task_weight_inverse(p, used);
	t->burst = runnable ? t->burst + used : t->burst / 2;
	if (t->burst > MAX_BURST_NS)
		t->burst = MAX_BURST_NS;
}

void BPF_STRUCT_OPS(latency_deadline_enable, struct task_struct *p)
{
	struct vtime_of *v = bpf_task_storage_get(&vtimes, p, 0, 0);

	if (v)
		v->v = vtime_now;
}

s32 BPF_STRUCT_OPS(latency_deadline_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	if (!bpf_task_storage_get(&ctxs, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE) ||
	    !bpf_task_storage_get(&vtimes, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE))
		return -ENOMEM;
	return 0;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(latency_deadline_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(latency_deadline_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(latency_deadline,
	       .select_cpu	= (void *)latency_deadline_select_cpu,
	       .enqueue	= (void *)latency_deadline_enqueue,
	       .dispatch	= (void *)latency_deadline_dispatch,
	       .running	= (void *)latency_deadline_running,
	       .stopping	= (void *)latency_deadline_stopping,
	       .enable		= (void *)latency_deadline_enable,
	       .init_task	= (void *)latency_deadline_init_task,
	       .init		= (void *)latency_deadline_init,
	       .exit		= (void *)latency_deadline_exit,
	       .name		= "latency_deadline");
