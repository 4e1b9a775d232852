// SPDX-License-Identifier: GPL-2.0-only
/*
 * backstop_timer: vtime queue; a 10 ms timer wakes idle CPUs if work waits in spite of the normal kicks.
 *
 * class: integrity
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x10c
#define SLICE_NS	(5ULL * 1000 * 1000)
#define PERIOD_NS	(10ULL * 1000 * 1000)

struct backstop {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct backstop);
} backstop_map SEC(".maps");

static u64 vtime_now;

s32 BPF_STRUCT_OPS(backstop_timer_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(backstop_timer_enqueue, struct task_struct *p, u64 enq_flags)
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

void BPF_STRUCT_OPS(backstop_timer_dispatch, s32 cpu, struct task_struct *prev)
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

void BPF_STRUCT_OPS(backstop_timer_running, struct task_struct *p)
{
	struct exec_mark *m = bpf_task_storage_get(&marks, p, 0, 0);

	if (m)
		m->at = p->se.sum_exec_runtime;
	if (time_before(vtime_now, p->scx.dsq_vtime))
		vtime_now = p->scx.dsq_vtime;
}

void BPF_STRUCT_OPS(backstop_timer_stopping, struct task_struct *p, bool runnable)
{
	struct exec_mark *m = bpf_task_storage_get(&marks, p, 0, 0);
	u64 used;

	if (!m)
		return;
	/* The kernel may refill or cut the slice, so charge what it has measured. */
	used = time_delta(p->se.sum_exec_runtime, m->at);
	scx_bpf_task_set_dsq_vtime(p, p->scx.dsq_vtime + scale_by_task_weight_inverse(p, used));
}

void BPF_STRUCT_OPS(backstop_timer_enable, struct task_struct *p)
{
	scx_bpf_task_set_dsq_vtime(p, vtime_now);
}

s32 BPF_STRUCT_OPS(backstop_timer_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	return bpf_task_storage_get(&marks, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE) ? 0 : -ENOMEM;
}

static int check(void *map, int *key, struct bpf_timer *timer)
{
	s32 i, nr = scx_bpf_nr_cpu_ids();

	if (scx_bpf_dsq_nr_queued(SHARED_DSQ) > 0) {
		bpf_for(i, 0, nr)
			scx_bpf_kick_cpu(i, SCX_KICK_IDLE);
	}
	bpf_timer_start(timer, PERIOD_NS, 0);
	return 0;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(backstop_timer_init)
{
	struct backstop *b;
	u32 key = 0;
	s32 err;

	err = scx_bpf_create_dsq(SHARED_DSQ, -1);
	if (err)
		return err;
	b = bpf_map_lookup_elem(&backstop_map, &key);
	if (!b)
		return -ESRCH;
	err = bpf_timer_init(&b->timer, &backstop_map, CLOCK_MONOTONIC);
	if (err)
		return err;
	bpf_timer_set_callback(&b->timer, check);
	return bpf_timer_start(&b->timer, PERIOD_NS, 0);
}

void BPF_STRUCT_OPS(backstop_timer_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(backstop_timer,
	       .select_cpu	= (void *)backstop_timer_select_cpu,
	       .enqueue	= (void *)backstop_timer_enqueue,
	       .dispatch	= (void *)backstop_timer_dispatch,
	       .running	= (void *)backstop_timer_running,
	       .stopping	= (void *)backstop_timer_stopping,
	       .enable		= (void *)backstop_timer_enable,
	       .init_task	= (void *)backstop_timer_init_task,
	       .init		= (void *)backstop_timer_init,
	       .exit		= (void *)backstop_timer_exit,
	       .name		= "backstop_timer");
