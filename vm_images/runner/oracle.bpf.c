// SPDX-License-Identifier: GPL-2.0-only
/*
 * What really happened, by the kernel's own tracepoints: who waited how long for a CPU, who ran, which CPU idled beside
 * somebody who waited, and the last switches one by one. Everything is in memory that the runner has mapped; nothing here
 * allocates, waits or fails. Contract: docs/reference/guest-protocol.md.
 */
#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "oracle.h"

#define PF_KTHREAD 0x00200000
#define TASK_DEAD 0x00000080
#define MAX_RT_PRIO 100
#define SCX_EXIT_ERROR 1024
#define TRIES 32	/* of a compare-and-swap beside other CPUs that do the same */

/* The compiler knows the bound and would leave the comparison out, or make it of a copy, but the verifier needs it. */
#define BOUNDED(v, n)                             \
	do {                                      \
		asm volatile("" : "+r"(v));       \
		if ((v) >= (n))                   \
			(v) = 0;                  \
		asm volatile("" : "+r"(v));       \
	} while (0)

typedef unsigned long long u64;

/* Just what is read; the loader finds out where the kernel has it. */
struct cpumask {
	unsigned long bits[1];
} __attribute__((preserve_access_index));

struct thread_info {
	unsigned int cpu;
} __attribute__((preserve_access_index));

struct task_struct {
	struct thread_info thread_info;
	int pid, tgid, prio, nr_cpus_allowed;
	unsigned int flags;
	const struct cpumask *cpus_ptr;
	char comm[16];
} __attribute__((preserve_access_index));

struct oracle_task tasks[ORACLE_TASKS];
struct oracle_group groups[ORACLE_GROUPS];
struct oracle_cpu cpus[ORACLE_CPUS];
struct oracle_queue any;	/* who may run everywhere */
struct oracle_record ring[ORACLE_RECORDS];
u64 head, switches, lost;
unsigned int frozen, runner, ncpus;

char _license[] SEC("license") = "GPL";

/* Not static, so that the verifier follows each of the next four once and not at every call. */
__noinline int raise_to(u64 *max, u64 v)
{
	if (!max)
		return 0;
	for (int i = 0; i < TRIES; i++) {
		u64 old = *(volatile u64 *)max;

		if (v <= old || __sync_val_compare_and_swap(max, old, v) == old)
			break;
	}
	return 0;
}

static __always_inline u64 queue_time(struct oracle_queue *q, u64 now)
{
	u64 word = *(volatile u64 *)&q->word, begin = word >> 16;

	return q->total + ((word & 0xffff) && now > begin ? now - begin : 0);
}

__noinline int queue_join(struct oracle_queue *q, u64 now)
{
	if (!q)
		return 0;
	for (int i = 0; i < TRIES; i++) {
		u64 old = *(volatile u64 *)&q->word;

		if (__sync_val_compare_and_swap(&q->word, old, old & 0xffff ? old + 1 : now << 16 | 1) == old)
			return 0;
	}
	__sync_fetch_and_add(&lost, 1);
	return 0;
}

__noinline int queue_leave(struct oracle_queue *q, u64 now)
{
	if (!q)
		return 0;
	for (int i = 0; i < TRIES; i++) {
		u64 old = *(volatile u64 *)&q->word, begin = old >> 16;
		bool last = (old & 0xffff) == 1;

		if (!(old & 0xffff))
			return 0;
		if (__sync_val_compare_and_swap(&q->word, old, last ? 0 : old - 1) != old)
			continue;
		if (last && now > begin)
			__sync_fetch_and_add(&q->total, now - begin);
		return 0;
	}
	__sync_fetch_and_add(&lost, 1);
	return 0;
}

struct each { u64 cpus, now; bool join; };

static long one_cpu(u64 i, struct each *e)
{
	unsigned int cpu;

	if (!e->cpus)
		return 1;
	cpu = oracle_log2(e->cpus) & (ORACLE_CPUS - 1);
	e->cpus &= ~(1ull << cpu);
	if (e->join)
		queue_join(&cpus[cpu].own, e->now);
	else
		queue_leave(&cpus[cpu].own, e->now);
	return 0;
}

__noinline int count_waiting(u64 where, u64 now, bool join)
{
	struct each e = { where, now, join };

	if (where == ~0ull) {
		if (join)
			queue_join(&any, now);
		else
			queue_leave(&any, now);
	} else if (where && !(where & (where - 1))) {
		one_cpu(0, &e);
	} else if (where) {
		bpf_loop(ORACLE_CPUS, one_cpu, &e, 0);
	}
	return 0;
}

static __always_inline void forget(struct oracle_task *t, struct task_struct *p)
{
	t->since = t->started = t->cpus = t->run_ns = 0;
	t->pid = (unsigned int)p->pid;
	t->next_group = 0;
	t->cpu = 0;
	t->judged = 0;
	t->kthread = !!(p->flags & PF_KTHREAD);
	t->comm[0] = 0;
}

static __always_inline struct oracle_task *task_of(struct task_struct *p)
{
	unsigned int pid = (unsigned int)p->pid;
	struct oracle_task *t = &tasks[pid & (ORACLE_TASKS - 1)];

	if (t->pid != pid) {
		/* seen for the first time: it was there before us (or another one has its place) */
		if (t->since)
			count_waiting(t->cpus, bpf_ktime_get_ns(), false);
		forget(t, p);
		t->group = t->kthread ? GROUP_KTHREADS : (unsigned int)p->tgid == runner ? GROUP_RUNNER : GROUP_OTHERS;
	}
	return t;
}

static __always_inline struct oracle_group *group_of(struct oracle_task *t)
{
	u64 g = t->group;

	if (g >= ORACLE_GROUPS)
		g = GROUP_OTHERS;
	BOUNDED(g, ORACLE_GROUPS);
	return &groups[g];
}

static __always_inline void wait_begins(struct oracle_task *t, struct task_struct *p, u64 now)
{
	if (t->since || t->started)
		return;
	t->since = now;
	/* a deadline or real-time task waits for its like, not for the scheduler under test */
	t->judged = p->prio >= MAX_RT_PRIO;
	t->cpus = 0;
	if (t->judged && t->group != GROUP_RUNNER) {
		t->cpus = (unsigned int)p->nr_cpus_allowed >= ncpus ? ~0ull : p->cpus_ptr->bits[0];
		count_waiting(t->cpus, now, true);
	}
}

static __always_inline void wait_ends(struct oracle_task *t, u64 now, bool counts)
{
	u64 waited = now > t->since ? now - t->since : 0;
	struct oracle_group *g = group_of(t);
	u64 b = oracle_bucket(waited);

	if (!t->since)
		return;
	BOUNDED(b, ORACLE_BUCKETS);
	if (t->cpus)
		count_waiting(t->cpus, now, false);
	if (counts && t->judged) {
		__sync_fetch_and_add(&g->waits, 1);
		__sync_fetch_and_add(&g->bucket[b], 1);
		raise_to(&g->max, waited);
	}
	t->since = 0;
	t->cpus = 0;
}

static __always_inline void record(u64 now, unsigned int kind, unsigned int cpu, unsigned int pid, unsigned int left,
				   unsigned int next)
{
	struct oracle_record *r;

	if (frozen)
		return;
	r = &ring[__sync_fetch_and_add(&head, 1) & (ORACLE_RECORDS - 1)];
	r->t = now;
	r->kind = (unsigned char)kind;
	r->cpu = (unsigned short)cpu;
	r->pid = pid;
	r->left = (unsigned char)left;
	r->next = next;
}

static __always_inline void idle_begins(struct oracle_cpu *c, u64 now)
{
	c->any_at = queue_time(&any, now);
	c->own_at = queue_time(&c->own, now);
	c->idle_since = now;
}

static __always_inline void idle_ends(struct oracle_cpu *c, u64 now)
{
	u64 idle = now > c->idle_since ? now - c->idle_since : 0, a, o;

	if (!c->idle_since)
		return;
	/* The longer of the two, not their sum: at times both had somebody. So it never says too much. */
	a = queue_time(&any, now) - c->any_at;
	o = queue_time(&c->own, now) - c->own_at;
	if (o > a)
		a = o;
	c->idle_ns += idle;
	c->wasted_ns += a < idle ? a : idle;
	c->idle_since = 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(on_switch, bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int prev_state)
{
	u64 now = bpf_ktime_get_ns();
	unsigned int cpu = bpf_get_smp_processor_id();
	unsigned int left = preempt || !prev_state ? LEFT_RUNNABLE : prev_state & TASK_DEAD ? LEFT_DEAD : LEFT_SLEEPING;
	struct oracle_cpu *c = cpu < ORACLE_CPUS ? &cpus[cpu] : 0;
	struct oracle_task *t;
	struct oracle_group *g;

	__sync_fetch_and_add(&switches, 1);
	if (prev->pid) {
		t = task_of(prev);
		g = group_of(t);
		if (t->started && now > t->started) {
			t->run_ns += now - t->started;
			__sync_fetch_and_add(&g->run_ns, now - t->started);
		}
		t->started = 0;
		wait_ends(t, now, false);	/* of one that had run before we looked */
		if (left == LEFT_RUNNABLE) {
			__sync_fetch_and_add(&g->preemptions, 1);
			wait_begins(t, prev, now);
		} else if (left == LEFT_DEAD) {
			bpf_probe_read_kernel(t->comm, sizeof(t->comm), prev->comm);
		}
	} else {
		left = LEFT_RUNNABLE;
	}
	if (next->pid) {
		t = task_of(next);
		g = group_of(t);
		wait_ends(t, now, true);
		t->started = now;
		__sync_fetch_and_add(&g->runs, 1);
		if (t->cpu && t->cpu != (unsigned short)(cpu + 1))
			__sync_fetch_and_add(&g->migrations, 1);
		t->cpu = (unsigned short)(cpu + 1);
	}
	/* at last, so that the task that ends a CPU's idle time has waited for it */
	if (c && !prev->pid)
		idle_ends(c, now);
	if (c && !next->pid)
		idle_begins(c, now);
	record(now, RECORD_SWITCH, cpu, (unsigned int)prev->pid, left, (unsigned int)next->pid);
	return 0;
}

/* Where the waker begins, so that what the scheduler does to place the task is part of the wait. */
SEC("tp_btf/sched_waking")
int BPF_PROG(on_waking, struct task_struct *p)
{
	wait_begins(task_of(p), p, bpf_ktime_get_ns());
	return 0;
}

static __always_inline int woken(struct task_struct *p)
{
	u64 now = bpf_ktime_get_ns();

	wait_begins(task_of(p), p, now);
	record(now, RECORD_WAKEUP, p->thread_info.cpu, (unsigned int)p->pid, 0, 0);
	return 0;
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(on_wakeup, struct task_struct *p)
{
	return woken(p);
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(on_wakeup_new, struct task_struct *p)
{
	return woken(p);
}

/* A process belongs to whom its parent belongs to, or to the load that the runner is just starting. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	struct oracle_task *from = task_of(parent), *t = &tasks[(unsigned int)child->pid & (ORACLE_TASKS - 1)];
	unsigned int group = from->next_group ? from->next_group : from->group;

	if (t->since)
		count_waiting(t->cpus, bpf_ktime_get_ns(), false);
	if (group == GROUP_RUNNER && (unsigned int)child->tgid != runner)
		group = GROUP_OTHERS;
	forget(t, child);
	t->group = (unsigned short)group;
	return 0;
}

/* From here on the kernel's own ordering rules; what led to it is what somebody will want to see. */
SEC("raw_tp/sched_ext_exit")
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	if ((unsigned int)ctx->args[1] >= SCX_EXIT_ERROR)
		frozen = FREEZE_TROUBLE;
	return 0;
}
