// SPDX-License-Identifier: GPL-2.0-only
/*
 * Built-in loads, the children's side. Each starts with the runner's real-time priority, so it comes to life even when
 * nothing else does, notes in shared memory since when it is waiting, and only then becomes an ordinary task. So the
 * runner sees a wait while it lasts, also the first one.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner.h"

#ifndef SCHED_EXT
#define SCHED_EXT 7
#endif
#define MEMBARRIER_GLOBAL 1

struct shared *shm;
int shm_fd = -1;

struct opts {
	uint64_t period_us, seed;
	int cpu, nice, policy, prio, in, out, peer, first, count;
};

int shared_create(void)
{
	shm_fd = memfd_create("testbed", MFD_CLOEXEC);
	if (shm_fd < 0 || ftruncate(shm_fd, sizeof(*shm)))
		return -errno;
	shm = mmap(NULL, sizeof(*shm), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, shm_fd, 0);
	return shm == MAP_FAILED ? -errno : 0;
}

static void record(struct slot *s, uint64_t late)
{
	uint64_t epoch = atomic_load(&shm->epoch);

	if (s->window.epoch != epoch) {
		memset(&s->window, 0, sizeof(s->window));
		s->window.epoch = epoch;
	}
	hist_add(&s->window, late);
	hist_add(&s->total, late);
}

static void wait_begins(struct slot *s, uint64_t when)
{
	atomic_store_explicit(&s->due, when, memory_order_release);
}

static void wait_over(struct slot *s, uint64_t since)
{
	uint64_t now = now_ns();

	record(s, now > since ? now - since : 0);
	atomic_store_explicit(&s->due, 0, memory_order_release);
}

static void spin(struct slot *s)
{
	for (;;) {
		for (int i = 0; i < 256; i++)
			asm volatile("" ::: "memory");
		atomic_store_explicit(&s->work, atomic_load_explicit(&s->work, memory_order_relaxed) + 256,
				      memory_order_relaxed);
	}
}

/*
 * It wakes up once before it spins. Until then it is where the real-time runner happened to be, and a scheduler that never
 * moves it would look as good or bad as that place is; who wakes up is placed by the scheduler.
 */
static void hog(struct slot *s)
{
	uint64_t due = now_ns() + NSEC_PER_MSEC;

	wait_begins(s, due);
	sleep_until(due);
	atomic_store(&s->due, 0);
	spin(s);
}

/* Sleepers wake neither together nor like a clock, or a scheduler would see the same order of wake-ups for ever. */
static void canary(struct slot *s, const struct opts *o)
{
	uint64_t period = o->period_us * 1000, due;
	struct rng r;

	rng_seed(&r, o->seed);
	due = now_ns() + period / 2 + rng_next(&r) % (period + 1);
	for (;;) {
		wait_begins(s, due);	/* in the future: no wait yet */
		sleep_until(due);
		wait_over(s, due);
		due += period - period / 10 + rng_next(&r) % (period / 5 + 1);
		/* After a long wait, not a burst of late wake-ups for the same cause. */
		if (due <= now_ns())
			due = now_ns() + period;
	}
}

/* Two tasks; the message is the time it was sent, so that the receiver knows its own delay. */
static void pipe_task(struct slot *s, const struct opts *o, bool starts)
{
	struct slot *peer = &shm->slot[o->peer];
	uint64_t stamp;

	if (starts) {
		atomic_store(&s->due, 0);
		goto send;
	}
	atomic_store(&s->due, 0);
	for (;;) {
		if (read(o->in, &stamp, sizeof(stamp)) != sizeof(stamp))
			_exit(3);
		wait_over(s, stamp);
		atomic_fetch_add_explicit(&s->roundtrips, 1, memory_order_relaxed);
send:
		stamp = now_ns();
		wait_begins(peer, stamp);
		if (write(o->out, &stamp, sizeof(stamp)) != sizeof(stamp))
			_exit(3);
	}
}

static void pause_until_next(const struct opts *o, uint64_t *next)
{
	uint64_t now = now_ns();

	*next += o->period_us * 1000;
	if (*next <= now)
		*next = now + (o->period_us ? 1000 : 0);	/* a moment of sleep: this one is real-time */
	if (*next > now)
		sleep_until(*next);
}

/* The waiting side of these two is real-time: only the kernel's worker is measured. */
static void kworker(struct slot *s, const struct opts *o)
{
	int fd = open("/proc/sys/vm/stat_refresh", O_WRONLY);
	uint64_t next = now_ns();

	if (fd < 0)
		_exit(4);
	for (;;) {
		uint64_t t = now_ns();

		wait_begins(s, t);
		if (pwrite(fd, "1", 1, 0) < 0)
			atomic_fetch_add(&s->errors, 1);
		wait_over(s, t);
		pause_until_next(o, &next);
	}
}

static void rcu(struct slot *s, const struct opts *o)
{
	uint64_t next = now_ns();

	for (;;) {
		uint64_t t = now_ns();

		wait_begins(s, t);
		if (syscall(SYS_membarrier, MEMBARRIER_GLOBAL, 0, 0))
			atomic_fetch_add(&s->errors, 1);
		wait_over(s, t);
		pause_until_next(o, &next);
	}
}

static void fork_reap(struct slot *s, const struct opts *o)
{
	struct rng r;
	uint64_t next = now_ns();

	rng_seed(&r, o->seed);
	for (;;) {
		uint64_t t = now_ns();
		unsigned turns = 2000 + (unsigned)(rng_next(&r) % 8000);
		pid_t pid;

		wait_begins(s, t);
		pid = fork();
		if (!pid) {
			for (volatile unsigned i = 0; i < turns; i++)
				;
			_exit(0);
		}
		if (pid < 0) {
			atomic_fetch_add(&s->errors, 1);
			atomic_store(&s->due, 0);
			sleep_until(t + NSEC_PER_MSEC);	/* not a storm of refusals */
			continue;
		}
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		wait_over(s, t);
		atomic_fetch_add_explicit(&s->forks, 1, memory_order_relaxed);
		if (o->period_us)
			pause_until_next(o, &next);
	}
}

static int pick_cpu(struct rng *r, const unsigned char *cpus, int n)
{
	int k = (int)(rng_next(r) % (uint64_t)n);

	for (int c = 0; c < 1024; c++)
		if (cpus[c] && !k--)
			return c;
	return 0;
}

static void set_random_affinity(struct rng *r, const unsigned char *cpus, int n, pid_t pid, struct slot *s)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	if (rng_next(r) & 1) {
		CPU_SET(pick_cpu(r, cpus, n), &set);
	} else {
		for (int c = 0; c < 1024; c++)
			if (cpus[c])
				CPU_SET(c, &set);
	}
	if (sched_setaffinity(pid, sizeof(set), &set))
		atomic_fetch_add_explicit(&s->errors, 1, memory_order_relaxed);
	else
		atomic_fetch_add_explicit(&s->moves, 1, memory_order_relaxed);
}

/* Real-time too: the spinning tasks it moves must not keep it from moving them. */
static void churn(struct slot *s, const struct opts *o)
{
	unsigned char cpus[1024];
	int n = online_cpus(cpus, 1024), at = 0;
	struct rng r;
	uint64_t next = now_ns();

	rng_seed(&r, o->seed);
	atomic_store(&s->due, 0);
	for (;;) {
		pid_t pid = atomic_load(&shm->slot[o->first + at].pid);

		at = (at + 1) % o->count;
		if (pid > 0)
			set_random_affinity(&r, cpus, n, pid, s);
		pause_until_next(o, &next);
	}
}

/*
 * Every system call of this task runs a seccomp filter of a few thousand instructions, and the kernel disables
 * migration while a BPF program runs: so the task is often preempted in just that state. (Loading an argument keeps
 * the kernel's cache of constant answers out of the way.)
 */
static void migration(struct slot *s, const struct opts *o)
{
	static struct sock_filter f[4000];
	const int n = sizeof(f) / sizeof(f[0]);
	struct sock_fprog prog = { .len = (unsigned short)n, .filter = f };
	unsigned char cpus[1024];
	int ncpus = online_cpus(cpus, 1024);
	struct rng r;

	rng_seed(&r, o->seed);
	f[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0]));
	for (int i = 1; i < n - 1; i++)
		f[i] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, 1);
	f[n - 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		_exit(5);
	atomic_store(&s->due, 0);
	for (;;) {
		for (int i = 0; i < 64; i++)
			syscall(SYS_getppid);
		atomic_fetch_add_explicit(&s->work, 64, memory_order_relaxed);
		set_random_affinity(&r, cpus, ncpus, 0, s);
	}
}

/* Weights and classes that a scheduler is told of while the task spins: nice from one end to the other, batch and idle. */
static void renice(struct slot *s, const struct opts *o)
{
	static const int policies[] = { SCHED_OTHER, SCHED_BATCH, SCHED_IDLE, SCHED_EXT };
	struct rng r;
	uint64_t next = now_ns();
	int at = 0;

	rng_seed(&r, o->seed);
	atomic_store(&s->due, 0);
	for (;;) {
		pid_t pid = atomic_load(&shm->slot[o->first + at].pid);
		int nice = (int)(rng_next(&r) % 40) - 20, policy = policies[rng_next(&r) % 4];

		at = (at + 1) % o->count;
		if (pid > 0 && (set_policy(pid, policy, 0) || setpriority(PRIO_PROCESS, (id_t)pid, nice)))
			atomic_fetch_add_explicit(&s->errors, 1, memory_order_relaxed);
		else
			atomic_fetch_add_explicit(&s->moves, 1, memory_order_relaxed);
		pause_until_next(o, &next);
	}
}

static void yield(struct slot *s)
{
	atomic_store(&s->due, 0);
	for (;;) {
		for (int i = 0; i < 16; i++)
			sched_yield();
		atomic_fetch_add_explicit(&s->work, 16, memory_order_relaxed);
	}
}

/*
 * A lock that each task of the load gets in its turn, does a little work under and hands over. So all of them get no
 * further than the one of them that the scheduler lets wait.
 */
static void lock(struct slot *s, const struct opts *o)
{
	_Atomic uint32_t *turn = &shm->slot[o->first].turn;
	uint32_t me = (uint32_t)s->index, next = (me + 1) % (uint32_t)o->count;
	struct slot *after = &shm->slot[o->first + (int)next];

	atomic_store(&s->due, 0);
	for (;;) {
		uint32_t seen = atomic_load(turn);
		uint64_t now;

		if (seen != me) {
			syscall(SYS_futex, turn, FUTEX_WAIT, seen, NULL, NULL, 0);
			continue;
		}
		now = atomic_load(&s->due);
		if (now)
			wait_over(s, now);
		for (volatile unsigned i = 0; i < 5000; i++)
			;
		atomic_fetch_add_explicit(&s->work, 1, memory_order_relaxed);
		/* Whose turn it is may not have come to life yet; then it has nothing to wait for. */
		if (atomic_load(&after->ready))
			wait_begins(after, now_ns());
		atomic_store(turn, next);
		syscall(SYS_futex, turn, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	}
}

/* Programs as a host has them: a scheduler must not know us by name. */
const char *load_name(uint64_t seed)
{
	static const char *const names[] = {
		"bash", "cc1", "chronyd", "cron", "dbus-daemon", "dockerd", "git", "haproxy", "java", "journald", "kubelet",
		"make", "memcached", "mysqld", "nginx", "node", "ntpd", "php-fpm", "postgres", "python3", "redis-server",
		"rsyslogd", "ruby", "sh", "sshd", "systemd-udevd", "tmux", "vim",
	};
	struct rng r;

	rng_seed(&r, seed ^ 0x6e616d65ull);
	return names[rng_next(&r) % (sizeof(names) / sizeof(names[0]))];
}

/* Where it begins is anybody's guess on a real machine too. Still real-time, so it gets there. */
static void begin_anywhere(uint64_t seed)
{
	unsigned char cpus[1024];
	int n = online_cpus(cpus, 1024);
	cpu_set_t one, all;
	struct rng r;

	if (sched_getaffinity(0, sizeof(all), &all))
		return;
	rng_seed(&r, seed ^ 0x706c616365ull);
	CPU_ZERO(&one);
	CPU_SET(pick_cpu(&r, cpus, n), &one);
	sched_setaffinity(0, sizeof(one), &one);
	sched_setaffinity(0, sizeof(all), &all);
}

/* argv = load KIND SLOT PERIOD_US CPU NICE POLICY SEED IN OUT PEER FIRST COUNT CGROUP */
int load_main(int argc, char **argv)
{
	struct opts o;
	struct slot *s;
	const char *kind;
	bool helper;
	int at;

	if (argc < 14)
		return 1;
	ports_drop();
	signal(SIGPIPE, SIG_DFL);
	shm = mmap(NULL, sizeof(*shm), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, 3, 0);
	if (shm == MAP_FAILED)
		return 1;
	kind = argv[1];
	at = atoi(argv[2]);
	if (at < 0 || at >= MAX_SLOTS)
		return 1;
	s = &shm->slot[at];
	o.period_us = strtoull(argv[3], NULL, 10);
	o.cpu = atoi(argv[4]);
	o.nice = atoi(argv[5]);
	o.seed = strtoull(argv[7], NULL, 10);
	o.in = atoi(argv[8]);
	o.out = atoi(argv[9]);
	o.peer = atoi(argv[10]);
	o.first = atoi(argv[11]);
	o.count = atoi(argv[12]);
	o.policy = SCHED_OTHER;
	o.prio = 0;
	if (!strcmp(argv[6], "batch"))
		o.policy = SCHED_BATCH;
	else if (!strcmp(argv[6], "idle"))
		o.policy = SCHED_IDLE;
	else if (!strcmp(argv[6], "ext"))
		o.policy = SCHED_EXT;
	else if (!strcmp(argv[6], "fifo")) {
		o.policy = SCHED_FIFO;
		o.prio = 1;
	}
	helper = !strcmp(kind, "kworker") || !strcmp(kind, "rcu") || !strcmp(kind, "churn") || !strcmp(kind, "renice");
	prctl(PR_SET_NAME, load_name(o.seed));
	if (o.cpu < 0)
		begin_anywhere(o.seed);
	if (o.cpu >= 0) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(o.cpu, &set);
		if (sched_setaffinity(0, sizeof(set), &set))
			return 6;
	}
	if (*argv[13] && cgroup_enter(argv[13]))
		return EXIT_CGROUP;
	setpriority(PRIO_PROCESS, 0, o.nice);
	wait_begins(s, now_ns());
	atomic_store(&s->pid, getpid());
	atomic_store(&s->ready, 1);
	if (helper) {
		set_fifo(0, PRIO_LOAD_HELPER);
	} else if (set_policy(0, o.policy, o.prio)) {
		atomic_store(&s->ready, -errno);
		return 7;
	}
	if (!strcmp(kind, "hog") || !strcmp(kind, "spin"))
		hog(s);
	else if (!strcmp(kind, "canary"))
		canary(s, &o);
	else if (!strcmp(kind, "ping"))
		pipe_task(s, &o, true);
	else if (!strcmp(kind, "pong"))
		pipe_task(s, &o, false);
	else if (!strcmp(kind, "kworker"))
		kworker(s, &o);
	else if (!strcmp(kind, "rcu"))
		rcu(s, &o);
	else if (!strcmp(kind, "fork"))
		fork_reap(s, &o);
	else if (!strcmp(kind, "churn"))
		churn(s, &o);
	else if (!strcmp(kind, "migration"))
		migration(s, &o);
	else if (!strcmp(kind, "renice"))
		renice(s, &o);
	else if (!strcmp(kind, "yield"))
		yield(s);
	else if (!strcmp(kind, "lock"))
		lock(s, &o);
	else if (!strcmp(kind, "cgroup"))
		cgroup_rounds(s, o.period_us, wait_begins, wait_over);
	return 8;
}
