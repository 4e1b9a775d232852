// SPDX-License-Identifier: GPL-2.0-only
/* The runner's side of the loads: starting, stopping, windows and what is reported of them. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner.h"

#define MAX_LOADS 64
#define MAX_CPUS 1024

enum { K_HOG, K_CANARY, K_PIPE, K_KWORKER, K_RCU, K_FORK, K_CHURN, K_MIGRATION, K_RENICE, K_YIELD, K_LOCK, K_CGROUP, KINDS };

/* tasks: what one unit of `count` consists of, in order; mover: who moves them all; gap: has a distribution */
static const struct {
	const char *name;
	const char *task[2], *mover;
	uint64_t period_us;
	bool gap, work, roundtrips, forks;
} kinds[KINDS] = {
	[K_HOG] = { "hog", { "hog" }, .work = true },
	[K_CANARY] = { "canary", { "canary" }, .period_us = 5000, .gap = true },
	[K_PIPE] = { "pipe", { "ping", "pong" }, .gap = true, .roundtrips = true },
	[K_KWORKER] = { "kworker", { "kworker" }, .period_us = 20000, .gap = true },
	[K_RCU] = { "rcu", { "rcu" }, .period_us = 50000, .gap = true },
	[K_FORK] = { "fork", { "fork" }, .gap = true, .forks = true },
	[K_CHURN] = { "churn", { "spin" }, .mover = "churn", .period_us = 1000, .work = true },
	[K_MIGRATION] = { "migration", { "migration" }, .work = true },
	[K_RENICE] = { "renice", { "spin" }, .mover = "renice", .period_us = 1000, .work = true },
	[K_YIELD] = { "yield", { "yield" }, .work = true },
	[K_LOCK] = { "lock", { "lock" }, .gap = true, .work = true },
	[K_CGROUP] = { "cgroup", { "cgroup" }, .gap = true, .forks = true },
};

struct counters { uint64_t work, roundtrips, forks, errors, moves, cputime; };

struct load {
	bool used;
	char name[64];
	int kind, first, count;		/* slots */
	int group;		/* of the oracle */
	struct child *child[MAX_SLOTS];
	struct counters at_begin[MAX_SLOTS];
};

static struct load loads[MAX_LOADS];
static int next_slot;

/* window */
static char window_name[64];
static bool window_open;
static uint64_t window_t0, window_idle[MAX_CPUS], window_iowait[MAX_CPUS], window_ctxt;

static struct load *find(const char *name)
{
	for (int i = 0; i < MAX_LOADS; i++)
		if (loads[i].used && !strcmp(loads[i].name, name))
			return &loads[i];
	return NULL;
}

static struct counters counters(const struct slot *s)
{
	struct counters c = {
		.work = atomic_load_explicit(&s->work, memory_order_relaxed),
		.roundtrips = atomic_load_explicit(&s->roundtrips, memory_order_relaxed),
		.forks = atomic_load_explicit(&s->forks, memory_order_relaxed),
		.errors = atomic_load_explicit(&s->errors, memory_order_relaxed),
		.moves = atomic_load_explicit(&s->moves, memory_order_relaxed),
		.cputime = oracle_cputime(atomic_load_explicit(&s->pid, memory_order_relaxed)),
	};
	return c;
}

struct spawn_call { char **argv; struct child *child; int err, group; };

static int spawn_call(void *p)
{
	struct spawn_call *c = p;

	oracle_spawning(c->group);
	c->child = child_spawn(CHILD_LOAD, c->argv, false, NULL, &c->err);
	oracle_spawning(0);
	return c->child ? 0 : c->err;
}

struct task { const char *word; int cpu, nice, in, out, peer, first, count; uint64_t period_us; const char *policy, *cgroup; };

/* Whose process it is: the name alone says nothing. */
static void send_task(const struct load *l, const struct slot *s, const char *kind, const char *comm)
{
	struct json j;

	ev_begin(&j, "task");
	ev_str(&j, "load", l->name);
	ev_str(&j, "kind", kind);
	ev_i64(&j, "task", s->index);
	ev_i64(&j, "pid", atomic_load(&s->pid));
	ev_str(&j, "comm", comm);
	ev_send(&j);
}

static int start_task(struct load *l, int slot, const struct task *t, char *why, size_t whylen)
{
	static struct spawn_call call;	/* static: a call that never returns still uses it */
	static char num[12][24], *argv[16];
	struct slot *s = &shm->slot[slot];
	int r, result = 0;
	uint64_t end, seed = job.seed * 1000003 + (uint64_t)slot;

	memset(s, 0, sizeof(*s));
	s->window.epoch = atomic_load(&shm->epoch);
	s->kind = l->kind;
	s->cpu = t->cpu;
	s->index = slot - l->first;
	argv[0] = "load";
	argv[1] = (char *)t->word;
	snprintf(num[0], 24, "%d", slot);
	snprintf(num[1], 24, "%llu", (unsigned long long)t->period_us);
	snprintf(num[2], 24, "%d", t->cpu);
	snprintf(num[3], 24, "%d", t->nice);
	snprintf(num[5], 24, "%llu", (unsigned long long)seed);
	snprintf(num[6], 24, "%d", t->in);
	snprintf(num[7], 24, "%d", t->out);
	snprintf(num[8], 24, "%d", t->peer);
	snprintf(num[9], 24, "%d", t->first);
	snprintf(num[10], 24, "%d", t->count);
	for (int i = 0; i < 11; i++)
		argv[2 + i] = num[i];
	argv[6] = (char *)t->policy;
	argv[13] = (char *)t->cgroup;
	argv[14] = NULL;
	memset(&call, 0, sizeof(call));
	call.argv = argv;
	call.group = l->group;
	r = pool_call(spawn_call, &call, 5000, &result);
	if (r || result) {
		snprintf(why, whylen, "%s: fork: %s", t->word, errno_name(r ? r : result));
		return r ? r : result;
	}
	l->child[slot - l->first] = call.child;
	call.child->slot = slot;
	end = now_ns() + 5 * NSEC_PER_SEC;
	while (!atomic_load(&s->ready)) {
		if (child_gone(call.child) || now_ns() > end) {
			if (call.child->exited && WIFEXITED(call.child->status) && WEXITSTATUS(call.child->status) == EXIT_CGROUP)
				snprintf(why, whylen, "%s could not enter cgroup %s", t->word, t->cgroup);
			else
				snprintf(why, whylen, "%s did not start (%s)", t->word,
					 call.child->exited ? "it ended" : "no sign of life in 5 s");
			return -ECHILD;
		}
		sleep_ms(1);
	}
	send_task(l, s, t->word, load_name(seed));
	return 0;
}

int load_start(int n, char **w, char *why, size_t whylen)
{
	struct load *l = NULL;
	unsigned char cpus[MAX_CPUS];
	int kind = -1, count = 1, nice = 0, cpu = -1, per_unit, units, r = 0;
	bool each = false;
	uint64_t period;
	const char *policy = "other", *cgroup = "";

	for (int i = 0; i < KINDS; i++)
		if (!strcmp(w[1], kinds[i].name))
			kind = i;
	if (kind < 0) {
		snprintf(why, whylen, "no load of kind %s", w[1]);
		return -EINVAL;
	}
	if (find(w[0])) {
		snprintf(why, whylen, "%s runs already", w[0]);
		return -EEXIST;
	}
	period = kinds[kind].period_us;
	for (int i = 2; i < n; i++) {
		char *v = strchr(w[i], '=');

		if (!v) {
			snprintf(why, whylen, "not an option: %s", w[i]);
			return -EINVAL;
		}
		v++;
		if (!strncmp(w[i], "count=", 6))
			count = atoi(v);
		else if (!strncmp(w[i], "nice=", 5))
			nice = atoi(v);
		else if (!strncmp(w[i], "period_us=", 10))
			period = strtoull(v, NULL, 10);
		else if (!strncmp(w[i], "policy=", 7) && (!strcmp(v, "other") || !strcmp(v, "batch") || !strcmp(v, "idle") ||
							  !strcmp(v, "ext") || !strcmp(v, "fifo")))
			policy = v;
		else if (!strncmp(w[i], "cgroup=", 7))
			cgroup = v;
		else if (!strncmp(w[i], "cpu=", 4) && !strcmp(v, "each"))
			each = true;
		else if (!strncmp(w[i], "cpu=", 4) && !strcmp(v, "any"))
			cpu = -1;
		else if (!strncmp(w[i], "cpu=", 4) && *v >= '0' && *v <= '9')
			cpu = atoi(v);
		else {
			snprintf(why, whylen, "not an option: %s", w[i]);
			return -EINVAL;
		}
	}
	units = count * (each ? online_cpus(cpus, MAX_CPUS) : 1);
	per_unit = kinds[kind].task[1] ? 2 : 1;
	/* Slots are never used twice: a stopped task may still be on its way out of the memory. */
	if (count < 1 || units > MAX_SLOTS || next_slot + units * per_unit + 1 > MAX_SLOTS) {
		snprintf(why, whylen, "too many tasks (%d in all, %d used)", MAX_SLOTS, next_slot);
		return -E2BIG;
	}
	for (int i = 0; i < MAX_LOADS && !l; i++)
		if (!loads[i].used)
			l = &loads[i];
	if (!l) {
		snprintf(why, whylen, "more than %d loads", MAX_LOADS);
		return -E2BIG;
	}
	memset(l, 0, sizeof(*l));
	l->used = true;
	snprintf(l->name, sizeof(l->name), "%s", w[0]);
	l->kind = kind;
	l->first = next_slot;
	l->group = oracle_group(l->name);
	for (int u = 0, c = -1; u < units && !r; u++) {
		struct task t = { .word = kinds[kind].task[0], .cpu = cpu, .nice = nice, .period_us = period, .policy = policy,
				  .cgroup = cgroup, .in = -1, .out = -1, .peer = -1, .first = l->first, .count = units };
		int ping[2], pong[2];

		if (each) {
			do
				c = (c + 1) % MAX_CPUS;
			while (!cpus[c]);
			t.cpu = c;
		}
		if (per_unit == 1) {
			r = start_task(l, next_slot++, &t, why, whylen);
			l->count++;
			continue;
		}
		/* only these two children may inherit the pipe, hence the flag for just this moment */
		if (pipe2(ping, O_CLOEXEC) || pipe2(pong, O_CLOEXEC)) {
			r = -errno;
			snprintf(why, whylen, "pipe: %s", errno_name(r));
			break;
		}
		for (int k = 0; k < 2; k++) {
			fcntl(ping[k], F_SETFD, 0);
			fcntl(pong[k], F_SETFD, 0);
		}
		t.word = kinds[kind].task[1];
		t.in = ping[0];
		t.out = pong[1];
		t.peer = next_slot;
		r = start_task(l, next_slot + 1, &t, why, whylen);
		if (!r) {
			t.word = kinds[kind].task[0];
			t.in = pong[0];
			t.out = ping[1];
			t.peer = next_slot + 1;
			r = start_task(l, next_slot, &t, why, whylen);
		}
		next_slot += 2;
		l->count += 2;
		for (int k = 0; k < 2; k++) {
			close(ping[k]);
			close(pong[k]);
		}
	}
	if (!r && kinds[kind].mover) {
		struct task t = { .word = kinds[kind].mover, .cpu = -1, .period_us = period, .policy = "other", .cgroup = "",
				  .in = -1, .out = -1, .peer = -1, .first = l->first, .count = l->count };

		r = start_task(l, next_slot++, &t, why, whylen);
		l->count++;
	}
	return r;
}

static void measure_head(struct json *j, const char *name, const struct load *l, int task, int cpu, const char *unit,
			 const char *window)
{
	ev_begin(j, "measure");
	ev_str(j, "name", name);
	ev_str(j, "load", l ? l->name : window);
	if (window && l)
		ev_str(j, "window", window);
	ev_i64(j, "task", task);
	ev_i64(j, "cpu", cpu);
	ev_str(j, "unit", unit);
}

static const char *unit_of(const char *name)
{
	return !strcmp(name, "work") ? "iterations" : !strcmp(name, "cputime") ? "ns" : "1";
}

static void measure_count(const struct load *l, const char *window, int task, int cpu, const char *name, uint64_t value)
{
	struct json j;

	measure_head(&j, name, l, task, cpu, unit_of(name), window);
	ev_u64(&j, "value", value);
	ev_u64(&j, "samples", 1);
	ev_send(&j);
}

static void measure_gap(const struct load *l, const char *window, int task, int cpu, const struct hist *h)
{
	static const struct { const char *stat; unsigned pm; } stats[] = {
		{ "max", 0 }, { "p50", 500 }, { "p99", 990 }, { "p99.9", 999 },
	};

	for (size_t i = 0; i < sizeof(stats) / sizeof(stats[0]); i++) {
		struct json j;

		measure_head(&j, "gap", l, task, cpu, "us", window);
		ev_str(&j, "stat", stats[i].stat);
		ev_milli(&j, "value", stats[i].pm ? hist_quantile(h, stats[i].pm) : h->max);
		ev_u64(&j, "samples", h->n);
		ev_send(&j);
	}
}

/* The figures of one load: since its start (window NULL), or in the window that is being closed. */
static void report(struct load *l, const char *window)
{
	static const struct counters none;
	static struct hist all, one;
	uint64_t now = now_ns(), epoch = atomic_load(&shm->epoch);

	memset(&all, 0, sizeof(all));
	for (int i = 0; i < l->count; i++) {
		struct slot *s = &shm->slot[l->first + i];
		struct counters c = counters(s);
		const struct counters *b = &l->at_begin[i];
		bool mover = kinds[l->kind].mover && i == l->count - 1;

		if (!window)
			b = &none;
		if (kinds[l->kind].gap) {
			uint64_t due = atomic_load(&s->due);

			/* a task that has not run since the window opened has no figures of this window */
			if (window && s->window.epoch != epoch)
				memset(&one, 0, sizeof(one));
			else
				one = window ? s->window : s->total;
			/* The wait that is still running counts as far as it has come, if it says something. */
			if (due && due < now && (now - due > one.max || now - due > NSEC_PER_MSEC))
				hist_add(&one, now - due);
			measure_gap(l, window, i, s->cpu, &one);
			hist_merge(&all, &one);
		}
		if (kinds[l->kind].work && !mover)
			measure_count(l, window, i, s->cpu, "work", c.work - b->work);
		if (mover)
			measure_count(l, window, i, s->cpu, "moves", c.moves - b->moves);
		if (kinds[l->kind].roundtrips && i % 2 == 0)
			measure_count(l, window, i, s->cpu, "roundtrips", c.roundtrips - b->roundtrips);
		if (kinds[l->kind].forks)
			measure_count(l, window, i, s->cpu, "forks", c.forks - b->forks);
		if (kinds[l->kind].forks || c.errors != b->errors)
			measure_count(l, window, i, s->cpu, "errors", c.errors - b->errors);
		if (oracle_works())
			measure_count(l, window, i, s->cpu, "cputime", c.cputime - b->cputime);
	}
	if (kinds[l->kind].gap && l->count > 1)
		measure_gap(l, window, -1, -1, &all);
}

static void kill_load(struct load *l)
{
	for (int i = 0; i < l->count; i++)
		if (l->child[i])
			child_signal(l->child[i], SIGKILL);
}

int load_stop(const char *name, char *why, size_t whylen)
{
	struct load *l = find(name);
	uint64_t end;
	int alive;

	if (!l)
		return -ENOENT;
	report(l, NULL);
	oracle_report(l->group);
	/* before ours: who is dead already was killed by somebody else */
	children_reap();
	children_report_deaths();
	/* SIGKILL at once: a load has nothing to tidy up, and it must not run on while others are being stopped. */
	kill_load(l);
	end = now_ns() + 5 * NSEC_PER_SEC;
	do {
		alive = 0;
		children_reap();
		for (int i = 0; i < l->count; i++)
			if (l->child[i] && !l->child[i]->exited)
				alive++;
		if (alive)
			sleep_ms(2);
	} while (alive && now_ns() < end);
	for (int i = 0; i < l->count; i++)
		if (l->child[i] && l->child[i]->exited)
			child_free(l->child[i]);
	l->used = false;
	if (alive) {
		snprintf(why, whylen, "%d tasks of %s have not died 5 s after SIGKILL", alive, name);
		return -ETIMEDOUT;
	}
	return 0;
}

void loads_kill_all(void)
{
	for (int i = 0; i < MAX_LOADS; i++)
		if (loads[i].used)
			kill_load(&loads[i]);
}

uint64_t loads_worst_wait(uint64_t now)
{
	uint64_t worst = 0;

	for (int i = 0; i < MAX_LOADS; i++) {
		if (!loads[i].used)
			continue;
		for (int k = 0; k < loads[i].count; k++) {
			uint64_t due = atomic_load_explicit(&shm->slot[loads[i].first + k].due, memory_order_acquire);

			if (due && due < now && now - due > worst)
				worst = now - due;
		}
	}
	return worst;
}

/* Idle time of each CPU, in /proc/stat's ticks of 10 ms (exact also while the tick is off). */
static void read_stat(uint64_t *idle, uint64_t *iowait, uint64_t *ctxt)
{
	static char buf[128 << 10];
	char *line = buf;

	memset(idle, 0, MAX_CPUS * sizeof(*idle));
	memset(iowait, 0, MAX_CPUS * sizeof(*iowait));
	*ctxt = 0;
	if (read_file("/proc/stat", buf, sizeof(buf)) <= 0)
		return;
	while (line && *line) {
		unsigned cpu;
		unsigned long long a, b, c, id, io;

		if (sscanf(line, "cpu%u %llu %llu %llu %llu %llu", &cpu, &a, &b, &c, &id, &io) == 6 && cpu < MAX_CPUS) {
			idle[cpu] = id;
			iowait[cpu] = io;
		} else if (!strncmp(line, "ctxt ", 5)) {
			*ctxt = strtoull(line + 5, NULL, 10);
		}
		line = strchr(line, '\n');
		if (line)
			line++;
	}
}

void window_begin(const char *name)
{
	snprintf(window_name, sizeof(window_name), "%s", name);
	atomic_fetch_add(&shm->epoch, 1);
	for (int i = 0; i < MAX_LOADS; i++)
		if (loads[i].used)
			for (int k = 0; k < loads[i].count; k++)
				loads[i].at_begin[k] = counters(&shm->slot[loads[i].first + k]);
	oracle_window_begin();
	read_stat(window_idle, window_iowait, &window_ctxt);
	window_t0 = now_ns();
	window_open = true;
}

static void measure_fraction(const char *name, int cpu, uint64_t ticks, uint64_t ncpus, uint64_t duration)
{
	/* millionths; a tick is 10 ms, so a window shows it with an error of one tick for each CPU */
	uint64_t v = duration ? (uint64_t)((__uint128_t)ticks * 10000000u * 1000000u / duration / ncpus) : 0;
	struct json j;

	measure_head(&j, name, NULL, 0, cpu, "1", window_name);
	ev_micro(&j, "value", v < 1000000 ? v : 1000000);
	ev_u64(&j, "samples", 1);
	ev_send(&j);
}

int window_end(const char *name)
{
	static uint64_t idle[MAX_CPUS], iowait[MAX_CPUS];
	unsigned char cpus[MAX_CPUS];
	uint64_t t1 = now_ns(), ctxt, duration, sum_idle = 0, sum_io = 0;
	int n;
	struct json j;

	if (!window_open || strcmp(name, window_name))
		return -ENOENT;
	read_stat(idle, iowait, &ctxt);
	oracle_window_close();
	window_open = false;
	duration = t1 - window_t0;
	n = online_cpus(cpus, MAX_CPUS);
	measure_head(&j, "duration", NULL, 0, -1, "ns", name);
	ev_u64(&j, "value", duration);
	ev_u64(&j, "samples", 1);
	ev_send(&j);
	measure_head(&j, "switches", NULL, 0, -1, "1/s", name);
	ev_milli(&j, "value", duration ? (uint64_t)((__uint128_t)(ctxt - window_ctxt) * NSEC_PER_SEC * 1000 / duration) : 0);
	ev_u64(&j, "samples", ctxt - window_ctxt);
	ev_send(&j);
	for (int c = 0; c < MAX_CPUS; c++) {
		if (!cpus[c])
			continue;
		sum_idle += idle[c] - window_idle[c];
		sum_io += iowait[c] - window_iowait[c];
		/* iowait is idle time with a reason, so it belongs to both */
		measure_fraction("idle", c, idle[c] - window_idle[c] + iowait[c] - window_iowait[c], 1, duration);
		measure_fraction("iowait", c, iowait[c] - window_iowait[c], 1, duration);
	}
	measure_fraction("idle", -1, sum_idle + sum_io, (uint64_t)n, duration);
	measure_fraction("iowait", -1, sum_io, (uint64_t)n, duration);
	for (int i = 0; i < MAX_LOADS; i++)
		if (loads[i].used)
			report(&loads[i], name);
	oracle_window_end(name, duration, ctxt - window_ctxt);
	return 0;
}
