// SPDX-License-Identifier: GPL-2.0-only
/*
 * Starting what is not ours (a candidate's program, the health command): another user, few capabilities or none, no new
 * privileges, an ordinary task, and dead when the watcher is.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host.h"

#define NOBODY 65534
#define USER "testbed-candidate:"

static uid_t candidate_uid = NOBODY;
static gid_t candidate_gid = NOBODY;

/* Read by hand: what libc would ask (NSS) is loaded at run time, and a static program loads nothing. */
void spawn_init(void)
{
	size_t n;
	char *text = read_whole(AT_FDCWD, ROOT "/etc/passwd", 1 << 20, &n), *save = NULL;

	for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
		unsigned uid, gid;
		char *field;

		if (strncmp(line, USER, strlen(USER)))
			continue;
		field = strchr(line + strlen(USER), ':');
		if (field && sscanf(field, ":%u:%u:", &uid, &gid) == 2 && uid && gid) {
			candidate_uid = uid;
			candidate_gid = gid;
		}
	}
	free(text);
}

uid_t spawn_uid(void)
{
	return candidate_uid;
}

gid_t spawn_gid(void)
{
	return candidate_gid;
}

static void give_up(const char *what)
{
	dprintf(2, "testbed-host: can't confine what is to be started: %s: %s\n", what, strerror(errno));
	_exit(126);
}

static void lower(const int *caps, int ncaps)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[2] = { 0 };

	for (int c = 0; c < 64; c++) {
		bool kept = false;

		for (int i = 0; i < ncaps; i++)
			kept |= caps[i] == c;
		if (!kept && prctl(PR_CAPBSET_DROP, c, 0, 0, 0) && errno != EINVAL)
			give_up("capability bounding set");
		if (kept) {
			d[c / 32].permitted |= 1u << (c % 32);
			d[c / 32].effective |= 1u << (c % 32);
			d[c / 32].inheritable |= 1u << (c % 32);
		}
	}
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) || syscall(SYS_setgroups, 0, NULL) ||
	    syscall(SYS_setresgid, candidate_gid, candidate_gid, candidate_gid) ||
	    syscall(SYS_setresuid, candidate_uid, candidate_uid, candidate_uid))
		give_up("another user");
	if (syscall(SYS_capset, &h, d))
		give_up("capset");
	for (int i = 0; i < ncaps; i++)
		if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, caps[i], 0, 0))
			give_up("ambient capabilities");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		give_up("no new privileges");
}

pid_t spawn(const char *path, char **argv, const int *caps, int ncaps, int out, const char *cgroup)
{
	static char *environment[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LC_ALL=C.UTF-8", NULL };
	pid_t parent = getpid(), pid = fork();
	struct rlimit files = { 65536, 65536 }, core = { 0, 0 };
	struct sched_param param = { 0 };
	sigset_t none;
	int null;

	if (pid)
		return pid < 0 ? -errno : pid;
	setsid();
	if (cgroup && write_word(cgroup, "0"))
		give_up("cgroup");
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (dup2(null, 0) < 0 || dup2(out >= 0 ? out : null, 1) < 0 || dup2(out >= 0 ? out : null, 2) < 0)
		_exit(126);
	close_range(3, ~0u, 0);
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setrlimit(RLIMIT_NOFILE, &files);
	setrlimit(RLIMIT_CORE, &core);
	if (chdir("/tmp") && chdir("/"))
		give_up("/tmp");
	sched_setscheduler(0, SCHED_OTHER, &param);
	lower(caps, ncaps);
	/* a change of user clears it, so it comes last */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(126);
	execve(path, argv, environment);
	dprintf(2, "testbed-host: can't execute %s: %s\n", path, strerror(errno));
	_exit(127);
}
