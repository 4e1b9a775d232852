// SPDX-License-Identifier: GPL-2.0-only
/* Candidates that are a program with its own loader (spawn.c says what it may), in a cgroup of its own where there are any. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host.h"

#define TAIL (64 << 10)

static pid_t pid;	/* 0: none */
static bool gone;
static int status, out = -1;
static char group[512];	/* the candidate's cgroup, empty if there is none */
static char tail[2 * TAIL];
static size_t tail_n;
static uint64_t lines;

/* What a scheduler's loader needs, as in the guest it was judged in. */
static const int caps[] = { CAP_BPF, CAP_PERFMON, CAP_IPC_LOCK, CAP_SYS_RESOURCE };

/* Our own cgroup has none of the controllers that forbid it to hold both tasks and groups. */
static void make_group(void)
{
	char text[4096], *own;

	group[0] = 0;
	if (read_word(PROC_DIR "/self/cgroup", text, sizeof(text)) <= 0)
		return;
	own = strstr(text, "0::");
	if (!own)
		return;
	own += 3;
	own[strcspn(own, "\n")] = 0;
	snprintf(group, sizeof(group), ROOT "/sys/fs/cgroup%s/candidate", strcmp(own, "/") ? own : "");
	if (mkdir(group, 0755) && errno != EEXIST)
		group[0] = 0;
}

/* The file name of the ELF interpreter; empty: it starts itself. */
static void interpreter(const char *path, char *name, size_t n)
{
	Elf64_Ehdr h;
	Elf64_Phdr p;
	char text[256] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	name[0] = 0;
	if (fd < 0)
		return;
	if (pread(fd, &h, sizeof(h), 0) == sizeof(h) && !memcmp(h.e_ident, ELFMAG, SELFMAG))
		for (int i = 0; i < h.e_phnum; i++) {
			if (pread(fd, &p, sizeof(p), (off_t)(h.e_phoff + (uint64_t)i * sizeof(p))) != sizeof(p) || p.p_type != PT_INTERP)
				continue;
			if (p.p_filesz && p.p_filesz < sizeof(text) && pread(fd, text, p.p_filesz, (off_t)p.p_offset) == (ssize_t)p.p_filesz)
				copy_text(name, n, strrchr(text, '/') ? strrchr(text, '/') + 1 : text);
			break;
		}
	close(fd);
}

int program_start(struct attach *a)
{
	static char path[800], loader[800], libraries[800], rel[300], name[256];
	static char *argv[MAX_OPTIONS + 8];
	json *options = json_get(a->bundle->candidate, "options", json_type_array);
	json *libs = json_get(a->bundle->candidate, "libraries", json_type_object);
	char join[600];
	const char *run = path;
	int pipes[2], n = 0;

	a->stage = "load";
	snprintf(rel, sizeof(rel), "bin/%s", a->bundle->name);
	bundle_path(a->bundle, rel, path, sizeof(path));
	interpreter(path, name, sizeof(name));
	if (name[0] && !json_object_object_get_ex(libs, name, NULL)) {
		snprintf(a->detail, sizeof(a->detail), "its interpreter `%s` is not among its libraries", name);
		return a->err = EINVAL, -EINVAL;
	}
	if (name[0]) {
		/* as in the guest: started by the interpreter that travels with it, which finds the libraries that do */
		snprintf(rel, sizeof(rel), "lib/%s", name);
		bundle_path(a->bundle, rel, loader, sizeof(loader));
		bundle_path(a->bundle, "lib", libraries, sizeof(libraries));
		run = argv[n++] = loader;
		argv[n++] = "--library-path";
		argv[n++] = libraries;
		argv[n++] = "--argv0";
		argv[n++] = (char *)a->bundle->name;
		argv[n++] = path;
	} else {
		argv[n++] = (char *)a->bundle->name;
	}
	for (size_t i = 0; i < json_object_array_length(options); i++)
		argv[n++] = (char *)json_object_get_string(json_object_array_get_idx(options, i));
	argv[n] = NULL;
	if (pipe2(pipes, O_CLOEXEC))
		return a->err = errno, -a->err;
	fcntl(pipes[0], F_SETFL, O_NONBLOCK);
	make_group();
	/* where shipped schedulers put the socket of their statistics; not there is not wrong */
	if (!mkdir(ROOT "/run/scx", 0755) || errno == EEXIST)
		if (chown(ROOT "/run/scx", spawn_uid(), spawn_gid()))
			errno = 0;
	snprintf(join, sizeof(join), "%s/cgroup.procs", group);
	gone = false;
	tail_n = lines = 0;
	if (out >= 0)
		close(out);
	out = pipes[0];
	pid = spawn(run, argv, caps, sizeof(caps) / sizeof(caps[0]), pipes[1], group[0] ? join : NULL);
	close(pipes[1]);
	if (pid < 0) {
		a->err = -pid;
		pid = 0;
		snprintf(a->detail, sizeof(a->detail), "can't start the program: %s", strerror(a->err));
		return -a->err;
	}
	return 0;
}

bool program_running(void)
{
	return pid > 0 && !program_gone();
}

bool program_gone(void)
{
	if (pid > 0 && !gone && waitpid(pid, &status, WNOHANG) == pid)
		gone = true;
	return gone;
}

void program_end_text(char *to, size_t n)
{
	const char *last = "";
	static char line[300];

	program_drain();
	if (tail_n) {
		size_t end = tail_n, from;

		while (end && tail[end - 1] == '\n')
			end--;
		for (from = end; from && tail[from - 1] != '\n'; from--)
			;
		snprintf(line, sizeof(line), "%.*s", (int)(end - from), tail + from);
		last = line;
	}
	if (!gone)
		snprintf(to, n, "it last said: %s", last);
	else if (WIFSIGNALED(status))
		snprintf(to, n, "killed by signal %d; it last said: %s", WTERMSIG(status), last);
	else
		snprintf(to, n, "exit status %d; it last said: %s", WEXITSTATUS(status), last);
}

void program_signal(int sig)
{
	if (program_running())
		kill(pid, sig);
}

void program_kill_all(void)
{
	char path[600];

	if (group[0]) {
		snprintf(path, sizeof(path), "%s/cgroup.kill", group);
		write_word(path, "1");
	}
	if (program_running())
		kill(-pid, SIGKILL);
	program_signal(SIGKILL);
}

/* After everybody is dead: the zombie, the pipe and the group. */
void program_forget(void)
{
	uint64_t end = now_ns() + NSEC_PER_SEC;

	if (pid <= 0)
		return;
	while (!program_gone() && now_ns() < end)
		sleep_ms(2);
	program_drain();
	if (out >= 0)
		close(out);
	out = -1;
	for (int i = 0; group[0] && rmdir(group) && errno == EBUSY && i < 100; i++)
		sleep_ms(2);
	pid = 0;
}

void program_drain(void)
{
	char buf[4096];

	for (int i = 0; out >= 0 && i < 256; i++) {
		ssize_t r = read(out, buf, sizeof(buf));

		if (r <= 0)
			break;
		for (ssize_t k = 0; k < r; k++)
			lines += buf[k] == '\n';
		if (tail_n + (size_t)r > sizeof(tail)) {
			memmove(tail, tail + tail_n - TAIL, TAIL);
			tail_n = TAIL;
		}
		memcpy(tail + tail_n, buf, (size_t)r);
		tail_n += (size_t)r;
	}
}

uint64_t program_lines(void)
{
	return lines;
}

size_t program_tail(const char **text)
{
	*text = tail;
	return tail_n;
}
