// SPDX-License-Identifier: GPL-2.0-only
/*
 * least_head_steal: a vtime queue per CPU on one clock; a CPU takes the smallest head if its own is behind.
 *
 * class: integrity
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define DSQ_BASE	0x10000
#define SLICE_NS	(4ULL * 1000 * 1000)

static u64 vtime_now;
static u32 nr_cpus = 1;

s32 BPF_STRUCT_OPS(least_head_steal_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(least_head_steal_enqueue, struct task_struct *p, u64 enq_flags)
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
	scx_bpf_dsq_insert_vtime(p, DSQ_BASE + scx_bpf_task_cpu(p), SLICE_NS, vtime, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(least_head_steal_dispatch, s32 cpu, struct task_struct *prev)
{
	u64 best_vtime = 0, own = DSQ_BASE + cpu, best = own;
	struct task_struct *p;
	bool found = false;
	u32 i, nr = nr_cpus;

	p = __COMPAT_scx_bpf_dsq_peek(own);
	if (p) {
		best_vtime = p->scx.dsq_vtime - SLICE_NS;
		found = true;
	}
	bpf_for(i, 0, nr) {
		if (i == (u32)cpu)
			continue;
		p = __COMPAT_scx_bpf_dsq_peek(DSQ_BASE + i);
		if (p && bpf_cpumask_test_cpu(cpu, p->cpus_ptr) &&
		    (!found || time_before(p->scx.dsq_vtime, best_vtime))) {
			best = DSQ_BASE + i;
			best_vtime = p->scx.dsq_vtime;
			found = true;
		}
	}
	if (scx_bpf_dsq_move_to_local(best, 0) || (best != own && scx_bpf_dsq_move_to_local(own, 0)))
		return;

	/* The heads were all pinned elsewhere or gone: take anything that may run here. */
	bpf_for(i, 1, nr) {
		if (scx_bpf_dsq_move_to_local(DSQ_BASE + ((u32)cpu + i) % nr, 0))
			return;
	}
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

void BPF_STRUCT_OPS(least_head_steal_running, struct task_struct *p)
{
	struct exec_mark *m = bpf_task_storage_get(&marks, p, 0, 0);

	if (m)
		m->at = p->se.sum_exec_runtime;
	if (time_before(vtime_now, p->scx.dsq_vtime))
		vtime_now = p->scx.dsq_vtime;
}

void BPF_STRUCT_OPS(least_head_steal_stopping, struct task_struct *p, bool runnable)
{
	struct exec_mark *m = bpf_task_storage_get(&marks, p, 0, 0);
	u64 used;

	if (!m)
		return;
	/* The kernel may refill or cut the slice, so charge what it has measured. */
	used = time_delta(p->se.sum_exec_runtime, m->at);
	scx_bpf_task_set_dsq_vtime(p, p->scx.dsq_vtime + scale_by_task_weight_inverse(p, used));
}

void BPF_STRUCT_OPS(least_head_steal_enable, struct task_struct *p)
{
	scx_bpf_task_set_dsq_vtime(p, vtime_now);
}

s32 BPF_STRUCT_OPS(least_head_steal_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	return bpf_task_storage_get(&marks, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE) ? 0 : -ENOMEM;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(least_head_steal_init)
{
	s32 i, err, nr = scx_bpf_nr_cpu_ids();

	if (nr > 0)
		nr_cpus = nr;

	bpf_for(i, 0, nr) {
		err = scx_bpf_create_dsq(DSQ_BASE + i, -1);
		if (err)
			return err;
	}
	return 0;
}

void BPF_STRUCT_OPS(least_head_steal_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(least_head_steal,
	       .select_cpu	= (void *)least_head_steal_select_cpu,
	       .enqueue	= (void *)least_head_steal_enqueue,
	       .dispatch	= (void *)least_head_steal_dispatch,
	       .running	= (void *)least_head_steal_running,
	       .stopping	= (void *)least_head_steal_stopping,
	       .enable		= (void *)least_head_steal_enable,
	       .init_task	= (void *)least_head_steal_init_task,
	       .init		= (void *)least_head_steal_init,
	       .exit		= (void *)least_head_steal_exit,
	       .name		= "least_head_steal");
