// SPDX-License-Identifier: GPL-2.0-only
/* The user's own idea of health: a command that root has put here, run now and then, for a bounded time, as nobody special. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host.h"

#define PERIOD (5 * NSEC_PER_SEC)
#define PATIENCE (5 * NSEC_PER_SEC)

static bool wanted;
static pid_t pid;
static uint64_t since, next;
static char why[128];

/* NULL, or what is wrong with the command itself. */
const char *health_init(void)
{
	int fd = open(HEALTH_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	wanted = false;
	next = 0;
	if (fd < 0)
		return errno == ENOENT ? NULL : "`" HEALTH_FILE "` can't be opened";
	wanted = owned_by_root(fd);
	close(fd);
	return wanted ? NULL : "`" HEALTH_FILE "` is not a file that only root can write";
}

const char *health_look(uint64_t now)
{
	int status;

	if (!wanted)
		return NULL;
	if (!pid && now >= next) {
		char *argv[] = { "health", NULL };

		pid = spawn(HEALTH_FILE, argv, NULL, 0, -1, NULL);
		since = now;
		if (pid < 0) {
			pid = 0;
			return "the health command can't be started";
		}
	}
	if (pid && waitpid(pid, &status, WNOHANG) == pid) {
		pid = 0;
		next = since + PERIOD;
		if (WIFEXITED(status) && !WEXITSTATUS(status))
			return NULL;
		if (WIFSIGNALED(status))
			snprintf(why, sizeof(why), "the health command was killed by signal %d", WTERMSIG(status));
		else
			snprintf(why, sizeof(why), "the health command ended with status %d", WEXITSTATUS(status));
		return why;
	}
	if (pid && now - since > PATIENCE)
		return "the health command did not end within 5 s";
	return NULL;
}

bool health_idle(void)
{
	return !pid;
}

void health_stop(void)
{
	if (!pid)
		return;
	kill(-pid, SIGKILL);
	kill(pid, SIGKILL);
	for (int i = 0; i < 200 && waitpid(pid, NULL, WNOHANG) != pid; i++)
		sleep_ms(2);
	pid = 0;
}
