// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the kernel says about sched_ext: its log, and its tracepoints through a trace instance of our own. Both are read
 * without blocking by whoever looks first, monitor or steps.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner.h"

#define INSTANCE "/sys/kernel/tracing/instances/testbed"

static pthread_mutex_t lock;
static int kmsg_fd = -1, trace_fd = -1;
static struct kernel_exit last;

void kmsg_open(void)
{
	mutex_init_pi(&lock);
	kmsg_fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (kmsg_fd >= 0)
		lseek(kmsg_fd, 0, SEEK_END);
}

void trace_open(void)
{
	/* An instance, because the top-level buffer may be used by a scenario's program. */
	if (mkdir(INSTANCE, 0700) && errno != EEXIST)
		return;
	write_file(INSTANCE "/buffer_size_kb", "512");
	write_file(INSTANCE "/events/sched_ext/sched_ext_dump/enable", "1");
	write_file(INSTANCE "/events/sched_ext/sched_ext_exit/enable", "1");
	trace_fd = open(INSTANCE "/trace_pipe", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
}

static void copy(char *to, size_t size, const char *from, size_t n)
{
	if (n >= size)
		n = size - 1;
	memcpy(to, from, n);
	to[n] = 0;
}

/* `sched_ext: BPF scheduler "X" disabled (reason)`, then, for a fault, `sched_ext: X: message` */
static void kernel_line(const char *s, size_t n)
{
	static const char head[] = "sched_ext: ", dis[] = "\" disabled (";
	const char *q, *end = s + n;
	size_t len;

	if (n < sizeof(head) - 1 || memcmp(s, head, sizeof(head) - 1))
		return;
	s += sizeof(head) - 1;
	if (n > 30 && !memcmp(s, "BPF scheduler \"", 15)) {
		s += 15;
		q = memmem(s, (size_t)(end - s), dis, sizeof(dis) - 1);
		if (!q)
			return;
		copy(last.ops, sizeof(last.ops), s, (size_t)(q - s));
		q += sizeof(dis) - 1;
		while (end > q && end[-1] != ')')
			end--;
		copy(last.reason, sizeof(last.reason), q, end > q ? (size_t)(end - 1 - q) : 0);
		last.message[0] = 0;
		last.seen = true;
		return;
	}
	len = strlen(last.ops);
	if (last.seen && !last.message[0] && (size_t)(end - s) > len + 2 && !memcmp(s, last.ops, len) && !memcmp(s + len, ": ", 2))
		copy(last.message, sizeof(last.message), s + len + 2, (size_t)(end - s) - len - 2);
}

/* One record of /dev/kmsg: `prio,seq,µs,flags;text\n KEY=value\n` */
static void kmsg_record(const char *rec, size_t n)
{
	const char *text = memchr(rec, ';', n), *nl;
	size_t len;

	if (!text)
		return;
	text++;
	nl = memchr(text, '\n', (size_t)(rec + n - text));
	len = (size_t)((nl ? nl + 1 : rec + n) - text);
	/* facility 0: what processes write to /dev/kmsg has another, and is none of the kernel's words */
	if (strtoul(rec, NULL, 10) >> 3)
		return;
	log_put(&log_kernel, text, len);
	kernel_line(text, nl ? len - 1 : len);
}

/* `task-pid [cpu] flags time: sched_ext_dump: LINE` */
static void trace_line(const char *s, size_t n)
{
	static const char dump[] = ": sched_ext_dump: ", left[] = ": sched_ext_exit: ";
	const char *q = memmem(s, n, dump, sizeof(dump) - 1);

	if (q) {
		q += sizeof(dump) - 1;
		dump_put(q, (size_t)(s + n - q));
		dump_put("\n", 1);
		return;
	}
	q = memmem(s, n, left, sizeof(left) - 1);
	if (q) {
		const char *k = memmem(q, (size_t)(s + n - q), " kind ", 6);

		if (k && !last.kind_seen) {
			last.kind = (uint32_t)strtoul(k + 6, NULL, 10);
			last.kind_seen = true;
		}
	}
}

void kernel_drain(void)
{
	static char buf[8192], line[4096];
	static size_t have;

	pthread_mutex_lock(&lock);
	for (int i = 0; kmsg_fd >= 0 && i < 256; i++) {
		ssize_t r = read(kmsg_fd, buf, sizeof(buf) - 1);

		if (r < 0 && errno == EPIPE)
			continue;	/* records were overwritten before they were read */
		if (r <= 0)
			break;
		buf[r] = 0;
		kmsg_record(buf, (size_t)r);
	}
	for (int i = 0; trace_fd >= 0 && i < 64; i++) {
		ssize_t r = read(trace_fd, buf, sizeof(buf) - 1);

		if (r <= 0)
			break;
		buf[r] = 0;
		for (ssize_t k = 0; k < r; k++) {
			if (buf[k] == '\n') {
				trace_line(line, have);
				have = 0;
			} else if (have < sizeof(line) - 1) {
				line[have++] = buf[k];
				line[have] = 0;
			}
		}
	}
	dump_flush();
	pthread_mutex_unlock(&lock);
}

void kernel_exit_reset(void)
{
	kernel_drain();
	pthread_mutex_lock(&lock);
	memset(&last, 0, sizeof(last));
	pthread_mutex_unlock(&lock);
}

void kernel_exit_get(struct kernel_exit *e)
{
	kernel_drain();
	pthread_mutex_lock(&lock);
	*e = last;
	pthread_mutex_unlock(&lock);
}
