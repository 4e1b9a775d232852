// SPDX-License-Identifier: GPL-2.0-only
/* Control groups: made and removed by the job's steps, entered by loads, and the load that does nothing else. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner.h"

#define ROOT "/sys/fs/cgroup"
#define CONTROLLERS "+cpu +pids"
#define PATH 256
#define STEP_MS 5000

struct call { char path[PATH]; bool make; };

static int write_in(const char *dir, const char *file, const char *value)
{
	char path[PATH + 64];

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	return write_file(path, value);
}

/* The scheduler may be asked, so this may wait for it. */
static int call(void *p)
{
	struct call *c = p;
	char parent[PATH];

	if (!c->make)
		return rmdir(c->path) ? -errno : 0;
	snprintf(parent, sizeof(parent), "%s", c->path);
	*strrchr(parent, '/') = 0;
	/* Without the cpu controller a group is none for the scheduler. */
	write_in(parent, "cgroup.subtree_control", CONTROLLERS);
	return mkdir(c->path, 0755) ? -errno : 0;
}

static int called(const char *name, bool make, char *why, size_t whylen)
{
	static struct call c;	/* static: a call that never returns still uses it */
	static bool stuck;
	int r, result = 0;

	if (stuck) {
		snprintf(why, whylen, "cgroup %s: an earlier call has not returned", name);
		return -EBUSY;
	}
	snprintf(c.path, sizeof(c.path), ROOT "/%s", name);
	c.make = make;
	r = pool_call(call, &c, STEP_MS, &result);
	stuck = r == -ETIMEDOUT;
	if (r || result) {
		snprintf(why, whylen, "%s: cgroup %s: %s", make ? "mkdir" : "rmdir", name, errno_name(r ? r : result));
		return r ? r : result;
	}
	return 0;
}

int cgroup_make(const char *name, int nfiles, char **files, char *why, size_t whylen)
{
	char path[PATH];
	int e = called(name, true, why, whylen);

	snprintf(path, sizeof(path), ROOT "/%s", name);
	for (int i = 0; i < nfiles && !e; i++) {
		char *v = strchr(files[i], '=');

		if (!v) {
			snprintf(why, whylen, "not an option: %s", files[i]);
			return -EINVAL;
		}
		*v = 0;
		e = write_in(path, files[i], v + 1);
		if (e)
			snprintf(why, whylen, "cgroup %s: cannot write %s: %s", name, files[i], errno_name(e));
		*v = '=';
	}
	return e;
}

int cgroup_remove(const char *name, char *why, size_t whylen)
{
	uint64_t end = now_ns() + STEP_MS * NSEC_PER_MSEC;
	int e;

	/* Who was killed a moment ago may still be on its way out. */
	while ((e = called(name, false, why, whylen)) == -EBUSY && now_ns() < end)
		sleep_ms(5);
	return e;
}

int cgroup_enter(const char *name)
{
	char path[PATH];

	snprintf(path, sizeof(path), ROOT "/%s", name);
	return write_in(path, "cgroup.procs", "0");
}

/* ---- the load: groups are made, entered, moved between, killed and removed, all of which a scheduler is asked about ---- */

static pid_t forking_child(void)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	for (;;) {
		pid = fork();
		if (!pid) {
			for (volatile unsigned i = 0; i < 2000; i++)
				;
			_exit(0);
		}
		if (pid > 0)
			waitpid(pid, NULL, 0);
	}
}

/* A task that has been reaped may still be in its group until its CPU has switched to another one. */
static int remove_soon(const char *path)
{
	for (int i = 0; i < 1000; i++) {
		if (!rmdir(path))
			return 0;
		if (errno != EBUSY)
			break;
		sleep_ms(1);
	}
	return -errno;
}

/* How often something was refused that is always possible. */
static unsigned round_of(const char *a, const char *b)
{
	unsigned refused = 0;
	char number[16];
	pid_t pid;

	if (mkdir(a, 0755))
		return 1;
	if (mkdir(b, 0755)) {
		remove_soon(a);
		return 1;
	}
	pid = forking_child();
	if (pid < 0) {
		refused++;
	} else {
		snprintf(number, sizeof(number), "%d", pid);
		refused += write_in(a, "cgroup.procs", number) != 0;
		sleep_ms(1);
		refused += write_in(b, "cgroup.procs", number) != 0;
		sleep_ms(1);
		/* In the middle of a fork, mostly: a fork that began and comes to nothing. */
		write_in(b, "cgroup.kill", "1");
		write_in(a, "cgroup.kill", "1");
		kill(pid, SIGKILL);
		while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
			;
	}
	refused += remove_soon(a) != 0;
	refused += remove_soon(b) != 0;
	return refused;
}

void cgroup_rounds(struct slot *s, uint64_t period_us, void (*begins)(struct slot *, uint64_t),
		   void (*over)(struct slot *, uint64_t))
{
	char a[PATH], b[PATH];

	/* what it leaves behind when it is killed is reaped by the runner, as init */
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	write_in(ROOT, "cgroup.subtree_control", CONTROLLERS);
	for (uint64_t round = 0;; round++) {
		uint64_t t = now_ns();
		unsigned refused;

		/* Names that never come back: a group that could not be removed is one mistake, not one in each round. */
		snprintf(a, sizeof(a), ROOT "/load-%d-%llu-a", getpid(), (unsigned long long)round);
		snprintf(b, sizeof(b), ROOT "/load-%d-%llu-b", getpid(), (unsigned long long)round);
		begins(s, t);
		refused = round_of(a, b);
		over(s, t);
		if (refused) {
			atomic_fetch_add(&s->errors, refused);
			sleep_ms(1);	/* not a storm of refusals */
		} else {
			atomic_fetch_add_explicit(&s->forks, 1, memory_order_relaxed);
		}
		if (period_us)
			sleep_until(now_ns() + period_us * 1000);
	}
}
