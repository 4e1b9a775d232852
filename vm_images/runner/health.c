// SPDX-License-Identifier: GPL-2.0-only
/* Is the machine alive? Each probe on a thread of the pool, because a sick machine's answer is no answer. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner.h"

struct probe { char name[16]; int cpu; uint64_t limit_ns; int (*fn)(void *); };

static int probe_fork(void *p)
{
	struct probe *b = p;
	char num[16], *argv[] = { "probe", num, NULL };
	uint64_t end = now_ns() + b->limit_ns;
	struct child *c;
	int err = 0, status;

	snprintf(num, sizeof(num), "%d", b->cpu);
	c = child_spawn(CHILD_PROBE, argv, false, NULL, &err);
	if (!c)
		return err;
	while (!child_gone(c)) {
		if (now_ns() > end) {
			/* not freed: it is still there, and the entry is how its death is understood */
			child_signal(c, SIGKILL);
			return -ETIMEDOUT;
		}
		sleep_until(now_ns() + NSEC_PER_MSEC / 2);
	}
	status = c->status;
	child_free(c);
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -ECHILD;
}

static int probe_write(void *p)
{
	char path[64], back[8] = "";
	int fd, e = 0;

	(void)p;
	snprintf(path, sizeof(path), "/tmp/.testbed-health");
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (write(fd, "alive", 5) != 5 || fsync(fd) || pread(fd, back, 5, 0) != 5 || memcmp(back, "alive", 5))
		e = -EIO;
	close(fd);
	unlink(path);
	return e;
}

static int probe_kworker(void *p)
{
	(void)p;
	return write_file("/proc/sys/vm/stat_refresh", "1");
}

static int probe_rcu(void *p)
{
	(void)p;
	return syscall(SYS_membarrier, 1 /* MEMBARRIER_CMD_GLOBAL */, 0, 0) ? -errno : 0;
}

bool health_check(uint64_t ms, char *why, size_t whylen)
{
	static struct probe probes[1024 + 3];	/* a probe that never returns still uses its entry */
	unsigned char cpus[1024];
	int n = 0;
	bool all = true;

	online_cpus(cpus, 1024);
	for (int c = 0; c < 1024; c++) {
		if (!cpus[c])
			continue;
		snprintf(probes[n].name, sizeof(probes[n].name), "fork:%d", c);
		probes[n].cpu = c;
		probes[n++].fn = probe_fork;
	}
	strcpy(probes[n].name, "write");
	probes[n++].fn = probe_write;
	strcpy(probes[n].name, "kworker");
	probes[n++].fn = probe_kworker;
	strcpy(probes[n].name, "rcu");
	probes[n++].fn = probe_rcu;
	for (int i = 0; i < n; i++) {
		uint64_t t0 = now_ns();
		int result = 0, e;
		struct json j;

		probes[i].limit_ns = ms * NSEC_PER_MSEC;
		e = pool_call(probes[i].fn, &probes[i], ms + 100, &result);
		if (!e)
			e = result;
		ev_begin(&j, "health");
		ev_str(&j, "probe", probes[i].name);
		ev_bool(&j, "ok", !e);
		ev_u64(&j, "elapsed_ns", now_ns() - t0);
		if (e)
			ev_str(&j, "detail", errno_name(e));
		ev_send(&j);
		if (e && all)
			snprintf(why, whylen, "%s: %s", probes[i].name, errno_name(e));
		all &= !e;
		if (job_over())
			break;
	}
	return all;
}
