// SPDX-License-Identifier: GPL-2.0-only
/* What the kernel says meanwhile: why a scheduler left, lock-ups and stalls, and how much it says. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host.h"

#define TAIL (128 << 10)

static int fd = -1;
static struct kernel_words words;
static char ops[128];
static char tail[2 * TAIL];	/* the last half or more is kept */
static size_t tail_n;

void kmsg_open(void)
{
	fd = open(ROOT "/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0)
		lseek(fd, 0, SEEK_END);
}

int kmsg_fd(void)
{
	return fd;
}

struct kernel_words *kmsg_words(void)
{
	return &words;
}

void kmsg_reset(bool all)
{
	uint64_t lines;

	kmsg_drain();
	lines = words.lines;
	memset(&words, 0, sizeof(words));
	words.lines = lines;
	ops[0] = 0;
	if (all)
		tail_n = 0;
}

size_t kmsg_tail(const char **text)
{
	*text = tail;
	return tail_n;
}

static void keep(const char *s, size_t n)
{
	if (n > TAIL)
		n = TAIL;
	if (tail_n + n + 1 > sizeof(tail)) {
		memmove(tail, tail + tail_n - TAIL, TAIL);
		tail_n = TAIL;
	}
	memcpy(tail + tail_n, s, n);
	tail_n += n;
	tail[tail_n++] = '\n';
}

static void part(char *to, size_t size, const char *from, size_t n)
{
	if (n >= size)
		n = size - 1;
	memcpy(to, from, n);
	to[n] = 0;
}

/* `sched_ext: BPF scheduler "X" disabled (reason)`, then, for a fault, `sched_ext: X: message` */
static void about_scx(char *s)
{
	static const char head[] = "sched_ext: ", who[] = "BPF scheduler \"", left[] = "\" disabled (";
	char *q;

	if (strncmp(s, head, sizeof(head) - 1))
		return;
	s += sizeof(head) - 1;
	if (!strncmp(s, who, sizeof(who) - 1)) {
		s += sizeof(who) - 1;
		q = strstr(s, left);
		if (!q)
			return;
		part(ops, sizeof(ops), s, (size_t)(q - s));
		q += sizeof(left) - 1;
		part(words.reason, sizeof(words.reason), q, strlen(q));
		q = strrchr(words.reason, ')');
		if (q)
			*q = 0;
		words.message[0] = 0;
		words.left = true;
		return;
	}
	if (words.left && !words.message[0] && !strncmp(s, ops, strlen(ops)) && !strncmp(s + strlen(ops), ": ", 2))
		copy_text(words.message, sizeof(words.message), s + strlen(ops) + 2);
}

/* What the kernel says when it is in trouble, whoever has brought it there. */
static void alarms(const char *s)
{
	static const struct { const char *text, *code; } table[] = {
		{ "soft lockup", "lock-up" }, { "hard LOCKUP", "lock-up" }, { "Hard LOCKUP", "lock-up" }, { "workqueue lockup", "lock-up" },
		{ "self-detected stall", "rcu-stall" }, { "detected stalls", "rcu-stall" }, { "detected expedited stalls", "rcu-stall" },
		{ "kthread starved for", "rcu-stall" }, { "blocked for more than", "hung-task" }, { "Kernel panic", "oops" },
		{ "BUG: ", "oops" }, { "Oops: ", "oops" }, { "general protection fault", "oops" }, { "WARNING: CPU: ", "warning" },
	};

	for (size_t i = 0; !words.alarm_code && i < sizeof(table) / sizeof(table[0]); i++) {
		if (!strstr(s, table[i].text))
			continue;
		copy_text(words.alarm, sizeof(words.alarm), s);
		words.alarm_code = table[i].code;
	}
}

/* One record: `prio,seq,µs,flags;text\n KEY=value\n` */
static void record(char *rec)
{
	char *text = strchr(rec, ';'), *end;

	if (!text)
		return;
	text++;
	end = strchr(text, '\n');
	if (end)
		*end = 0;
	/* facility 0: what processes write to /dev/kmsg has another, and is none of the kernel's words */
	if (strtoul(rec, NULL, 10) >> 3)
		return;
	words.lines++;
	keep(text, strlen(text));
	about_scx(text);
	alarms(text);
}

void kmsg_drain(void)
{
	char buf[8192];

	/* bounded, so that a storm does not keep the watcher here */
	for (int i = 0; fd >= 0 && i < 512; i++) {
		ssize_t r = read(fd, buf, sizeof(buf) - 1);

		if (r < 0 && errno == EPIPE) {
			words.lines++;	/* records were overwritten before they were read */
			continue;
		}
		if (r <= 0)
			break;
		buf[r] = 0;
		record(buf);
	}
}

/* Lines that programs have written to the kernel's trace buffer (bpf_printk), if it can be seen and nobody traces. */
uint64_t trace_lines(void)
{
	DIR *d = opendir(TRACE_DIR "/per_cpu");
	struct dirent *entry;
	uint64_t sum = 0;

	while (d && (entry = readdir(d))) {
		char path[600], text[1024];

		if (strncmp(entry->d_name, "cpu", 3))
			continue;
		snprintf(path, sizeof(path), TRACE_DIR "/per_cpu/%s/stats", entry->d_name);
		if (read_word(path, text, sizeof(text)) <= 0)
			continue;
		for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
			unsigned long long n;

			if (sscanf(line, "entries: %llu", &n) == 1 || sscanf(line, "overrun: %llu", &n) == 1 ||
			    sscanf(line, "dropped events: %llu", &n) == 1)
				sum += n;
		}
	}
	if (d)
		closedir(d);
	return sum;
}
