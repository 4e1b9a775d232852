// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who is runnable and does not run? A task in state R whose run time and number of turns stay the same. It runs in the
 * monitor: no allocation, static tables, raw directory reads (opendir allocates).
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runner.h"

#define TABLE 4096		/* tasks remembered; a power of two */
#define REPORTS_PER_SCAN 8
#define PF_KTHREAD 0x00200000u

struct seen { int tid; unsigned gen; uint64_t runtime, turns, since, told; };
static struct seen table[TABLE];
static unsigned gen;

static struct seen *slot_of(int tid)
{
	struct seen *free_one = NULL;

	for (unsigned i = 0, h = (unsigned)tid * 2654435761u; i < 64; i++) {
		struct seen *s = &table[(h + i) % TABLE];

		if (s->tid == tid)
			return s;
		/* entries of tasks that were not there at the last scan are free */
		if (!free_one && (!s->tid || gen - s->gen > 1))
			free_one = s;
	}
	if (free_one) {
		memset(free_one, 0, sizeof(*free_one));
		free_one->tid = tid;
	}
	return free_one;
}

static ssize_t read_at(const char *path, char *buf, size_t n)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t r;

	if (fd < 0)
		return -1;
	r = read(fd, buf, n - 1);
	close(fd);
	buf[r > 0 ? r : 0] = 0;
	return r;
}

static void report(int pid, int tid, const char *comm, bool kthread, int cpu, uint64_t waited)
{
	char path[64], status[4096], *p;
	struct json j;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", pid, tid);
	read_at(path, status, sizeof(status));
	p = strstr(status, "Cpus_allowed_list:\t");
	if (p) {
		p += 19;
		p[strcspn(p, "\n")] = 0;
	}
	ev_begin(&j, "starving");
	ev_i64(&j, "pid", pid);
	ev_i64(&j, "tid", tid);
	ev_str(&j, "comm", comm);
	ev_bool(&j, "kthread", kthread);
	ev_i64(&j, "cpu", cpu);
	ev_str(&j, "allowed", p ? p : "");
	ev_u64(&j, "waited_ms", waited / NSEC_PER_MSEC);
	ev_send(&j);
}

/* Returns the number of threads of the process (0: gone). */
static int look(int pid, int tid, uint64_t now, uint64_t limit, int *reports)
{
	char path[64], buf[1024], comm[32] = "", *p, *q;
	unsigned long long runtime, delay, turns;
	struct seen *s;
	char state;
	unsigned flags = 0;
	int threads = 1, cpu = -1, field;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/schedstat", pid, tid);
	if (read_at(path, buf, sizeof(buf)) <= 0 || sscanf(buf, "%llu %llu %llu", &runtime, &delay, &turns) != 3)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
	if (read_at(path, buf, sizeof(buf)) <= 0)
		return 0;
	p = strchr(buf, '(');
	q = strrchr(buf, ')');	/* the name may have anything in it */
	if (!p || !q || q[1] != ' ')
		return 0;
	snprintf(comm, sizeof(comm), "%.*s", (int)(q - p - 1), p + 1);
	state = q[2];
	field = 3;
	for (p = q + 2; p && *p; p = strchr(p, ' ') ? strchr(p, ' ') + 1 : NULL, field++) {
		if (field == 9)
			flags = (unsigned)strtoul(p, NULL, 10);
		else if (field == 20)
			threads = atoi(p);
		else if (field == 39) {
			cpu = atoi(p);
			break;
		}
	}
	s = slot_of(tid);
	if (!s)
		return threads;
	if (state != 'R' || s->runtime != runtime || s->turns != turns || gen - s->gen > 1) {
		s->since = state == 'R' ? now : 0;
		s->told = 0;
	} else if (!s->since) {
		s->since = now;
	}
	s->runtime = runtime;
	s->turns = turns;
	s->gen = gen;
	if (s->since && now - s->since >= limit && (!s->told || now - s->told >= NSEC_PER_SEC - 100 * NSEC_PER_MSEC) &&
	    *reports < REPORTS_PER_SCAN) {
		s->told = now;
		++*reports;
		report(pid, tid, comm, flags & PF_KTHREAD, cpu, now - s->since);
	}
	return threads;
}

static int next_number(int fd, char *buf, size_t size, long *have, long *at)
{
	for (;;) {
		struct dirent64 *d;

		if (*at >= *have) {
			*have = syscall(SYS_getdents64, fd, buf, size);
			*at = 0;
			if (*have <= 0)
				return 0;
		}
		d = (struct dirent64 *)(buf + *at);
		*at += d->d_reclen;
		if (d->d_name[0] > '0' && d->d_name[0] <= '9')
			return atoi(d->d_name);
	}
}

bool starving_scan(uint64_t limit_ms)
{
	static char outer[8192] __attribute__((aligned(8))), inner[8192] __attribute__((aligned(8)));
	long have = 0, at = 0;
	uint64_t now = now_ns();
	int fd, pid, reports = 0, self = getpid();
	char load[128];
	int running = 0;

	/* `… R/total pid`: with nobody runnable but us there is nothing to find, and the scan is saved */
	if (read_at("/proc/loadavg", load, sizeof(load)) > 0 && sscanf(load, "%*s %*s %*s %d/", &running) == 1 && running <= 1)
		return false;
	gen++;
	fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return false;
	while ((pid = next_number(fd, outer, sizeof(outer), &have, &at))) {
		char path[64];
		long have2 = 0, at2 = 0;
		int tfd, tid;

		if (pid == self || look(pid, pid, now, limit_ms * NSEC_PER_MSEC, &reports) <= 1)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task", pid);
		tfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (tfd < 0)
			continue;
		while ((tid = next_number(tfd, inner, sizeof(inner), &have2, &at2)))
			if (tid != pid)
				look(pid, tid, now, limit_ms * NSEC_PER_MSEC, &reports);
		close(tfd);
	}
	close(fd);
	return reports > 0;
}
