// SPDX-License-Identifier: GPL-2.0-only
/*
 * cautious_preempt: vtime, 10 ms slices; a woken task behind its share may preempt, at most every 2 ms per CPU.
 *
 * class: latency
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x10f
#define SLICE_NS	(10ULL * 1000 * 1000)
#define GRACE_NS	(2ULL * 1000 * 1000)
#define MAX_CPUS	1024

static u64 vtime_now;
static u64 last_preempt[MAX_CPUS];

s32 BPF_STRUCT_OPS(cautious_preempt_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(cautious_preempt_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 vtime = p->scx.dsq_vtime, now = scx_bpf_now();
	s32 cpu, own = scx_bpf_task_cpu(p);
	u64 *last = &last_preempt[own & (MAX_CPUS - 1)];

	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	/* A sleeper keeps at most one slice of credit. */
	if (time_before(vtime, vtime_now - SLICE_NS))
		vtime = vtime_now - SLICE_NS;
	scx_bpf_dsq_insert_vtime(p, SHARED_DSQ, SLICE_NS, vtime, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0) {
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
		return;
	}
	/* The queue is in vtime order, so the one that the kick brings in is the one with the best claim. */
	if ((enq_flags & SCX_ENQ_WAKEUP) && time_before(vtime, vtime_now) && time_after(now, *last + GRACE_NS)) {
		*last = now;
		scx_bpf_kick_cpu(own, SCX_KICK_PREEMPT);
	}
}

void BPF_STRUCT_OPS(cautious_preempt_dispatch, s32 cpu, struct task_struct *prev)
{
	if (scx_bpf_dsq_move_to_local(SHARED_DSQ, 0))
		return;
	/* Nobody waits: let it go on, with a slice of our length. */
	if (prev && (prev->scx.flags & SCX_TASK_QUEUED))
		scx_bpf_task_set_slice(prev, SLICE_NS);
}

void BPF_STRUCT_OPS(cautious_preempt_running, struct task_struct *p)
{
	if (time_before(vtime_now, p->scx.dsq_vtime))
		vtime_now = p->scx.dsq_vtime;
}

struct start {
	u64 runtime;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct start);
} starts SEC(".maps");

void BPF_STRUCT_OPS(cautious_preempt_stopping, struct task_struct *p, bool runnable)
{
	struct start *s = bpf_task_storage_get(&starts, p, 0, 0);
	u64 runtime = p->se.sum_exec_runtime;

	/* A preempted task has a slice of 0, so charge what the kernel has measured. */
	if (!s)
		return;
	scx_bpf_task_set_dsq_vtime(p, p->scx.dsq_vtime +
				   scale_by_task_weight_inverse(p, time_delta(runtime, s->runtime)));
	s->runtime = runtime;
}

void BPF_STRUCT_OPS(cautious_preempt_enable, struct task_struct *p)
{
	struct start *s = bpf_task_storage_get(&starts, p, 0, 0);

	if (s)
		s->runtime = p->se.sum_exec_runtime;
	scx_bpf_task_set_dsq_vtime(p, vtime_now);
}

s32 BPF_STRUCT_OPS(cautious_preempt_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	return bpf_task_storage_get(&starts, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE) ? 0 : -ENOMEM;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(cautious_preempt_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(cautious_preempt_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(cautious_preempt,
	       .select_cpu	= (void *)cautious_preempt_select_cpu,
	       .enqueue	= (void *)cautious_preempt_enqueue,
	       .dispatch	= (void *)cautious_preempt_dispatch,
	       .running	= (void *)cautious_preempt_running,
	       .stopping	= (void *)cautious_preempt_stopping,
	       .enable		= (void *)cautious_preempt_enable,
	       .init_task	= (void *)cautious_preempt_init_task,
	       .init		= (void *)cautious_preempt_init,
	       .exit		= (void *)cautious_preempt_exit,
	       .name		= "cautious_preempt");
