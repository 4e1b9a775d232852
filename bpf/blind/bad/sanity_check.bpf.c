// SPDX-License-Identifier: GPL-2.0-only
/*
 * sanity_check: FIFO with a built-in sanity timer that unloads the scheduler when a CPU looks stuck.
 *
 * Failure mode: a task that is alone on its CPU keeps it without any switch (the kernel refills the slice and
 * ops.running is not called again), so one undisturbed CPU hog looks "stuck" after half a second and the scheduler
 * ejects itself with scx_bpf_error. Only light load triggers it: with more tasks than CPUs there are always switches.
 *
 * class: integrity
 * expect: reject
 * needs: 10 s of run time with one CPU hog alone on a CPU
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0xa8
#define SLICE_NS	(5ULL * 1000 * 1000)
#define CHECK_NS	(250ULL * 1000 * 1000)
#define STUCK_NS	(500ULL * 1000 * 1000)
#define MAX_CPUS	256

struct check {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct check);
} check_map SEC(".maps");

static u64 last_switch[MAX_CPUS];
static u64 busy[MAX_CPUS];

s32 BPF_STRUCT_OPS(sanity_check_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(sanity_check_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(sanity_check_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

void BPF_STRUCT_OPS(sanity_check_running, struct task_struct *p)
{
	u32 cpu = scx_bpf_task_cpu(p) & (MAX_CPUS - 1);

	busy[cpu] = 1;
	last_switch[cpu] = bpf_ktime_get_ns();
}

void BPF_STRUCT_OPS(sanity_check_stopping, struct task_struct *p, bool runnable)
{
	busy[scx_bpf_task_cpu(p) & (MAX_CPUS - 1)] = 0;
}

static int sanity(void *map, int *key, struct bpf_timer *timer)
{
	u64 now = bpf_ktime_get_ns();
	s32 i;

	/* Slices are 5 ms, so a CPU that has not switched for 500 ms has lost its tick or its queue. */
	bpf_for(i, 0, MAX_CPUS) {
		if (busy[i] && last_switch[i] && time_after(now, last_switch[i] + STUCK_NS))
			scx_bpf_error("CPU %d is stuck", i);
	}
	bpf_timer_start(timer, CHECK_NS, 0);
	return 0;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(sanity_check_init)
{
	struct check *c;
	u32 key = 0;
	s32 err;

	err = scx_bpf_create_dsq(SHARED_DSQ, -1);
	if (err)
		return err;
	c = bpf_map_lookup_elem(&check_map, &key);
	if (!c)
		return -ESRCH;
	bpf_timer_init(&c->timer, &check_map, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&c->timer, sanity);
	return bpf_timer_start(&c->timer, CHECK_NS, 0);
}

void BPF_STRUCT_OPS(sanity_check_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(sanity_check,
	       .select_cpu	= (void *)sanity_check_select_cpu,
	       .enqueue	= (void *)sanity_check_enqueue,
	       .dispatch	= (void *)sanity_check_dispatch,
	       .running	= (void *)sanity_check_running,
	       .stopping	= (void *)sanity_check_stopping,
	       .init		= (void *)sanity_check_init,
	       .exit		= (void *)sanity_check_exit,
	       .name		= "sanity_check");
