// SPDX-License-Identifier: GPL-2.0-only
/*
 * Processes of the runner. All are this same binary, executed anew: vfork + exec copies no page tables, so the locked
 * memory of the runner stays its own (no copy-on-write faults in the monitor after every fork).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner.h"

static struct child children[MAX_CHILDREN];
static pthread_mutex_t lock;
/* Deaths of processes not (yet) in the table: a child may die before vfork's caller has noted it. */
static struct { pid_t pid; int status; } early[32];
static unsigned early_n;

void children_init(void)
{
	mutex_init_pi(&lock);
}

/* The order of file descriptors that every mode of this binary relies on: 0 null, 1 and 2 output, 3 shared memory. */
static pid_t spawn(char *const argv[], int out)
{
	pid_t pid = vfork();

	if (pid)
		return pid < 0 ? -errno : pid;
	/* Shares the parent's memory until exec: system calls only. */
	int null = open("/dev/null", O_RDWR);

	dup2(null, 0);
	dup2(out >= 0 ? out : null, 1);
	dup2(out >= 0 ? out : null, 2);
	if (shm_fd == 3)
		fcntl(3, F_SETFD, 0);
	else
		dup2(shm_fd, 3);
	setpgid(0, 0);
	execv("/proc/self/exe", argv);
	_exit(127);
}

struct child *child_spawn(enum child_kind kind, char *const argv[], bool with_output, struct logsrc *to, int *err)
{
	struct child *c = NULL;
	int out[2] = { -1, -1 };
	pid_t pid;

	pthread_mutex_lock(&lock);
	for (int i = 0; i < MAX_CHILDREN && !c; i++)
		if (children[i].kind == CHILD_NONE)
			c = &children[i];
	if (c) {
		memset(c, 0, sizeof(*c));
		c->kind = kind;
		c->out_fd = -1;
		c->load = c->slot = -1;
		c->to = to;
	}
	pthread_mutex_unlock(&lock);
	if (!c) {
		*err = -EAGAIN;
		return NULL;
	}
	if (with_output && pipe2(out, O_CLOEXEC)) {
		*err = -errno;
		c->kind = CHILD_NONE;
		return NULL;
	}
	if (with_output)
		fcntl(out[0], F_SETFL, O_NONBLOCK);
	pid = spawn(argv, out[1]);
	if (with_output)
		close(out[1]);
	pthread_mutex_lock(&lock);
	if (pid < 0) {
		if (with_output)
			close(out[0]);
		c->kind = CHILD_NONE;
		c = NULL;
		*err = pid;
	} else {
		c->out_fd = out[0];
		c->pid = pid;
		for (unsigned i = 0; i < early_n; i++) {
			if (early[i].pid != pid)
				continue;
			c->exited = true;
			c->status = early[i].status;
			c->ended = now_ns();
			early[i] = early[--early_n];
			break;
		}
	}
	pthread_mutex_unlock(&lock);
	return c;
}

void child_free(struct child *c)
{
	pthread_mutex_lock(&lock);
	if (c->out_fd >= 0)
		close(c->out_fd);
	if (c->kind == CHILD_EXEC)
		log_close(&c->log);
	c->out_fd = -1;
	c->kind = CHILD_NONE;
	pthread_mutex_unlock(&lock);
}

void children_reap(void)
{
	pthread_mutex_lock(&lock);
	for (;;) {
		int status;
		pid_t pid = waitpid(-1, &status, WNOHANG);
		struct child *c = NULL;

		if (pid <= 0)
			break;
		for (int i = 0; i < MAX_CHILDREN && !c; i++)
			if (children[i].kind != CHILD_NONE && children[i].pid == pid && !children[i].exited)
				c = &children[i];
		if (c) {
			c->status = status;
			c->ended = now_ns();
			c->exited = true;
			continue;
		}
		if (early_n == sizeof(early) / sizeof(early[0]))
			memmove(early, early + 1, --early_n * sizeof(early[0]));
		early[early_n].pid = pid;
		early[early_n++].status = status;
	}
	pthread_mutex_unlock(&lock);
}

bool child_gone(struct child *c)
{
	children_reap();
	return c->exited;
}

void child_signal(struct child *c, int sig)
{
	pthread_mutex_lock(&lock);
	if (c->kind != CHILD_NONE && !c->exited && c->pid > 0) {
		c->we_signalled = true;
		/* its process group, so that what it started dies too (every child leads one) */
		if (kill(-c->pid, sig))
			kill(c->pid, sig);
	}
	pthread_mutex_unlock(&lock);
}

/* Remembers the last line that has text, to say it when the program dies. */
static void note_line(struct child *c, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (s[i] == '\n') {
			c->last_done = true;
			continue;
		}
		if (c->last_done) {
			c->last_len = 0;
			c->last_done = false;
		}
		if (c->last_len < sizeof(c->last_line) - 1)
			c->last_line[c->last_len++] = s[i];
		c->last_line[c->last_len] = 0;
	}
}

void children_drain(void)
{
	static char buf[2000];	/* under the lock */

	pthread_mutex_lock(&lock);
	for (int i = 0; i < MAX_CHILDREN; i++) {
		struct child *c = &children[i];

		if (c->kind == CHILD_NONE || c->out_fd < 0 || !c->to)
			continue;
		/* a bound for each look, so that a flood of output cannot hold up the beats */
		for (int k = 0; k < 16; k++) {
			ssize_t r = read(c->out_fd, buf, sizeof(buf));

			if (r <= 0) {
				if (!r) {
					close(c->out_fd);
					c->out_fd = -1;
				}
				break;
			}
			note_line(c, buf, (size_t)r);
			log_put(c->to, buf, (size_t)r);
		}
	}
	pthread_mutex_unlock(&lock);
}

/* A load ends when it is told to, by SIGKILL of ours; whatever else ends one is not the runner's doing. */
void children_report_deaths(void)
{
	for (int i = 0; i < MAX_CHILDREN; i++) {
		struct child *c = &children[i];
		struct json j;
		char text[128];

		/* monitor and steps both come here */
		pthread_mutex_lock(&lock);
		bool news = c->kind == CHILD_LOAD && c->exited && !c->told && !c->we_signalled;

		c->told |= news;
		pthread_mutex_unlock(&lock);
		if (!news)
			continue;
		if (WIFSIGNALED(c->status))
			snprintf(text, sizeof(text), "load process %d died by signal %d", c->pid, WTERMSIG(c->status));
		else
			snprintf(text, sizeof(text), "load process %d exited with status %d", c->pid, WEXITSTATUS(c->status));
		ev_begin(&j, "tampered");
		ev_str(&j, "what", text);
		ev_send(&j);
	}
}

static void ordinary(void)
{
	signal(SIGPIPE, SIG_DFL);
	set_policy(0, SCHED_OTHER, 0);
}

/* `exec NAME PATH ARG…`: argv = exec PATH ARG…; the guest's root, without what reaches the hardware or the kernel */
int exec_main(int argc, char **argv)
{
	static const int dropped[] = { CAP_SYS_RAWIO, CAP_SYS_MODULE, CAP_SYS_BOOT };

	if (argc < 2)
		return 127;
	ports_drop();
	close_range(3, ~0u, 0);
	for (size_t i = 0; i < sizeof(dropped) / sizeof(dropped[0]); i++)
		prctl(PR_CAPBSET_DROP, dropped[i], 0, 0, 0);
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	setenv("HOME", "/tmp", 1);
	if (chdir("/tmp"))
		return 127;
	ordinary();
	execvp(argv[1], argv + 1);
	dprintf(2, "cannot execute %s: %s\n", argv[1], errno_name(errno));
	return 127;
}

/* health's child: argv = probe CPU; runs there in the ordinary class and ends */
int probe_main(int argc, char **argv)
{
	cpu_set_t set;

	if (argc < 2)
		return 1;
	ports_drop();
	CPU_ZERO(&set);
	CPU_SET(atoi(argv[1]), &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		return 2;
	ordinary();
	/* One more round through the run queue, so that it was the ordinary class that ran us. */
	sched_yield();
	return 0;
}
