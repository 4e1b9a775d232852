// SPDX-License-Identifier: GPL-2.0-only
/*
 * shared_vtime: global weighted virtual time with a bounded credit for sleepers; pinned kernel threads run locally.
 *
 * class: integrity
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x102
#define SLICE_NS	(4ULL * 1000 * 1000)

static u64 vtime_now;

s32 BPF_STRUCT_OPS(shared_vtime_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(shared_vtime_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 vtime = p->scx.dsq_vtime;
	s32 cpu;

	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	/* A sleeper keeps at most one slice of credit. */
	if (time_before(vtime, vtime_now - SLICE_NS))
		vtime = vtime_now - SLICE_NS;
	scx_bpf_dsq_insert_vtime(p, SHARED_DSQ, SLICE_NS, vtime, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(shared_vtime_dispatch, s32 cpu, struct task_struct *prev)
{
	if (scx_bpf_dsq_move_to_local(SHARED_DSQ, 0))
		return;
	/* Nobody waits: let it go on, with a slice of our length. */
	if (prev && (prev->scx.flags & SCX_TASK_QUEUED))
		scx_bpf_task_set_slice(prev, SLICE_NS);
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

void BPF_STRUCT_OPS(shared_vtime_running, struct task_struct *p)
{
	struct exec_mark *m = bpf_task_storage_get(&marks, p, 0, 0);

	if (m)
		m->at = p->se.sum_exec_runtime;
	if (time_before(vtime_now, p->scx.dsq_vtime))
		vtime_now = p->scx.dsq_vtime;
}

void BPF_STRUCT_OPS(shared_vtime_stopping, struct task_struct *p, bool runnable)
{
	struct exec_mark *m = bpf_task_storage_get(&marks, p, 0, 0);
	u64 used;

	if (!m)
		return;
	/* The kernel may refill or cut the slice, so charge what it has measured. */
	used = time_delta(p->se.sum_exec_runtime, m->at);
	scx_bpf_task_set_dsq_vtime(p, p->scx.dsq_vtime + scale_by_task_weight_inverse(p, used));
}

void BPF_STRUCT_OPS(shared_vtime_enable, struct task_struct *p)
{
	scx_bpf_task_set_dsq_vtime(p, vtime_now);
}

s32 BPF_STRUCT_OPS(shared_vtime_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	return bpf_task_storage_get(&marks, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE) ? 0 : -ENOMEM;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(shared_vtime_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(shared_vtime_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(shared_vtime,
	       .select_cpu	= (void *)shared_vtime_select_cpu,
	       .enqueue	= (void *)shared_vtime_enqueue,
	       .dispatch	= (void *)shared_vtime_dispatch,
	       .running	= (void *)shared_vtime_running,
	       .stopping	= (void *)shared_vtime_stopping,
	       .enable		= (void *)shared_vtime_enable,
	       .init_task	= (void *)shared_vtime_init_task,
	       .init		= (void *)shared_vtime_init,
	       .exit		= (void *)shared_vtime_exit,
	       .name		= "shared_vtime");
