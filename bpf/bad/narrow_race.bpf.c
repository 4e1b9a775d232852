// SPDX-License-Identifier: GPL-2.0-only
/*
 * narrow_race: one ring for all, behind a lock that gives up.
 *
 * Failure mode: the ring's lock is made by hand, and as a loop in BPF has to end, who
 * has tried often enough goes on without it. That works as long as nobody is held up
 * between reading and writing the ring's tail, some thirty microseconds. When a
 * hypervisor or an SMI stops a CPU just there, and another CPU enqueues in the meantime,
 * both write the same slot and one task is forgotten for good.
 *
 * One order of events says nothing about it: seed 0, the undisturbed machine, is fine.
 * Which seed loses a task is another one with each image: the ninth first with one (and
 * none of the other thirteen), the very next one with another.
 *
 * class: race
 * expect: reject runnable-task-stall,task-starved,canary-starved,kworker-starved
 * seeds: 30 of first-look
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define SHARED_DSQ	0
#define RING_SIZE	4096	/* more than there are tasks */
#define PATIENCE	300	/* tries until the lock is ignored */

struct place {
	s32 pid;
	u64 since;
};

static struct place ring[RING_SIZE];
static volatile u32 head, tail;
static u32 lock;

u64 longest_wait, seen_twice;

static void lock_ring(void)
{
	u32 i;

	bpf_for(i, 0, PATIENCE)
		if (!__sync_val_compare_and_swap(&lock, 0, 1))
			return;
}

static void unlock_ring(void)
{
	__sync_lock_test_and_set(&lock, 0);
}

static void push(struct task_struct *p)
{
	struct place *place;
	u32 at, i;

	lock_ring();
	at = tail;
	/* no task may be there twice: a look at the last places */
	bpf_for(i, 0, 120)
		if (ring[(at - i) % RING_SIZE].pid == p->pid)
			seen_twice++;
	place = &ring[at % RING_SIZE];
	place->pid = p->pid;
	place->since = bpf_ktime_get_ns();
	tail = at + 1;
	unlock_ring();
}

static s32 pop(void)
{
	u64 waited;
	s32 pid = 0;
	u32 at;

	lock_ring();
	at = head;
	if (at != tail) {
		pid = ring[at % RING_SIZE].pid;
		waited = bpf_ktime_get_ns() - ring[at % RING_SIZE].since;
		if (waited > longest_wait)
			longest_wait = waited;
		head = at + 1;
	}
	unlock_ring();
	return pid;
}

s32 BPF_STRUCT_OPS(narrow_race_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;

	return scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);
}

void BPF_STRUCT_OPS(narrow_race_enqueue, struct task_struct *p, u64 enq_flags)
{
	push(p);
	scx_bpf_kick_cpu(scx_bpf_task_cpu(p), SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(narrow_race_dispatch, s32 cpu, struct task_struct *prev)
{
	u32 i;

	bpf_for(i, 0, 8) {
		struct task_struct *p;
		s32 pid = pop();

		if (!pid)
			break;
		p = bpf_task_from_pid(pid);
		if (!p)
			continue;
		/* Whoever may not run here is left for a CPU of its own. */
		scx_bpf_dsq_insert(p, SHARED_DSQ, SCX_SLICE_DFL / 4, 0);
		scx_bpf_kick_cpu(scx_bpf_task_cpu(p), SCX_KICK_IDLE);
		bpf_task_release(p);
	}
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(narrow_race_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(narrow_race,
	       .select_cpu	= (void *)narrow_race_select_cpu,
	       .enqueue		= (void *)narrow_race_enqueue,
	       .dispatch	= (void *)narrow_race_dispatch,
	       .init		= (void *)narrow_race_init,
	       .name		= "narrow_race");
