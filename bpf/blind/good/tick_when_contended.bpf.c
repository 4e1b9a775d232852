// SPDX-License-Identifier: GPL-2.0-only
/*
 * tick_when_contended: vtime with 16 ms slices that end after 3 ms as soon as somebody waits.
 *
 * class: integrity
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x10a
#define SLICE_NS	(16ULL * 1000 * 1000)
#define MIN_RUN_NS	(3ULL * 1000 * 1000)

static u64 vtime_now;

s32 BPF_STRUCT_OPS(tick_when_contended_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(tick_when_contended_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 vtime = p->scx.dsq_vtime;
	s32 cpu;

	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	/* A sleeper keeps at most one minimum turn of credit. */
	if (time_before(vtime, vtime_now - MIN_RUN_NS))
		vtime = vtime_now - MIN_RUN_NS;
	scx_bpf_dsq_insert_vtime(p, SHARED_DSQ, SLICE_NS, vtime, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(tick_when_contended_dispatch, s32 cpu, struct task_struct *prev)
{
	if (scx_bpf_dsq_move_to_local(SHARED_DSQ, 0))
		return;
	/* Nobody waits: let it go on, with a slice of our length. */
	if (prev && (prev->scx.flags & SCX_TASK_QUEUED))
		scx_bpf_task_set_slice(prev, SLICE_NS);
}

void BPF_STRUCT_OPS(tick_when_contended_tick, struct task_struct *p)
{
	u64 left = p->scx.slice;

	if (left < SLICE_NS - MIN_RUN_NS && (scx_bpf_dsq_nr_queued(SHARED_DSQ) > 0))
		scx_bpf_task_set_slice(p, 0);
}

struct start {
	u64 at;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct start);
} starts SEC(".maps");

void BPF_STRUCT_OPS(tick_when_contended_running, struct task_struct *p)
{
	struct start *s = bpf_task_storage_get(&starts, p, 0, 0);

	if (s)
		s->at = scx_bpf_now();
	if (time_before(vtime_now, p->scx.dsq_vtime))
		vtime_now = p->scx.dsq_vtime;
}

void BPF_STRUCT_OPS(tick_when_contended_stopping, struct task_struct *p, bool runnable)
{
	struct start *s = bpf_task_storage_get(&starts, p, 0, 0);

	/* The tick cuts slices short, so what is left of the slice is no measure: use the clock. */
	if (s && s->at)
		scx_bpf_task_set_dsq_vtime(p, p->scx.dsq_vtime +
					   scale_by_task_weight_inverse(p, time_delta(scx_bpf_now(), s->at)));
}

void BPF_STRUCT_OPS(tick_when_contended_enable, struct task_struct *p)
{
	scx_bpf_task_set_dsq_vtime(p, vtime_now);
}

s32 BPF_STRUCT_OPS(tick_when_contended_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	return bpf_task_storage_get(&starts, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE) ? 0 : -ENOMEM;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(tick_when_contended_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(tick_when_contended_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(tick_when_contended,
	       .select_cpu	= (void *)tick_when_contended_select_cpu,
	       .enqueue	= (void *)tick_when_contended_enqueue,
	       .dispatch	= (void *)tick_when_contended_dispatch,
	       .tick		= (void *)tick_when_contended_tick,
	       .running	= (void *)tick_when_contended_running,
	       .stopping	= (void *)tick_when_contended_stopping,
	       .enable		= (void *)tick_when_contended_enable,
	       .init_task	= (void *)tick_when_contended_init_task,
	       .init		= (void *)tick_when_contended_init,
	       .exit		= (void *)tick_when_contended_exit,
	       .name		= "tick_when_contended");
