// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "runner.h"

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

void sleep_until(uint64_t ns)
{
	struct timespec ts = { .tv_sec = (time_t)(ns / NSEC_PER_SEC), .tv_nsec = (long)(ns % NSEC_PER_SEC) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

void sleep_ms(uint64_t ms)
{
	sleep_until(now_ns() + ms * NSEC_PER_MSEC);
}

/* The monitor must not wait behind a low-priority holder that the candidate keeps from running. */
void mutex_init_pi(pthread_mutex_t *m)
{
	pthread_mutexattr_t a;

	pthread_mutexattr_init(&a);
	pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(m, &a);
	pthread_mutexattr_destroy(&a);
}

int set_policy(pid_t tid, int policy, int prio)
{
	struct sched_param p = { .sched_priority = prio };

	return sched_setscheduler(tid, policy, &p) ? -errno : 0;
}

int set_fifo(pid_t tid, int prio)
{
	return set_policy(tid, SCHED_FIFO, prio);
}

ssize_t read_file(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t n = 0;

	buf[0] = 0;
	if (fd < 0)
		return -errno;
	while (n < size - 1) {
		ssize_t r = read(fd, buf + n, size - 1 - n);

		if (r < 0) {
			int e = errno;

			close(fd);
			buf[n] = 0;
			return -e;
		}
		if (!r)
			break;
		n += (size_t)r;
	}
	close(fd);
	buf[n] = 0;
	return (ssize_t)n;
}

int write_file(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	size_t len = strlen(value);
	ssize_t r;
	int e = 0;

	if (fd < 0)
		return -errno;
	r = write(fd, value, len);
	if (r < 0)
		e = -errno;
	else if ((size_t)r != len)
		e = -EIO;
	close(fd);
	return e;
}

uint64_t read_u64(const char *path, uint64_t fallback)
{
	char buf[64];

	if (read_file(path, buf, sizeof(buf)) <= 0 || buf[0] < '0' || buf[0] > '9')
		return fallback;
	return strtoull(buf, NULL, 10);
}

/* Creates the directories above the last component. */
int mkdir_parents(const char *path)
{
	char buf[4096];
	size_t n = strlen(path);

	if (n >= sizeof(buf))
		return -ENAMETOOLONG;
	memcpy(buf, path, n + 1);
	for (char *p = buf + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = 0;
		if (mkdir(buf, 0755) && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return 0;
}

int parse_cpulist(const char *text, unsigned char *cpus, int max)
{
	int count = 0;

	memset(cpus, 0, (size_t)max);
	while (*text >= '0' && *text <= '9') {
		char *end;
		long a = strtol(text, &end, 10), b = a;

		if (*end == '-')
			b = strtol(end + 1, &end, 10);
		for (long c = a; c <= b && c < max; c++) {
			if (!cpus[c])
				count++;
			cpus[c] = 1;
		}
		text = *end == ',' ? end + 1 : end;
	}
	return count;
}

int online_cpus(unsigned char *cpus, int max)
{
	char buf[1024];

	if (read_file("/sys/devices/system/cpu/online", buf, sizeof(buf)) <= 0)
		strcpy(buf, "0");
	return parse_cpulist(buf, cpus, max);
}

const char *errno_name(int err)
{
	const char *n = strerrorname_np(err < 0 ? -err : err);

	return n ? n : "unknown error";
}

void die(const char *what)
{
	/* The console is the only voice left. */
	dprintf(2, "testbed-runner: %s\n", what);
	if (is_init)
		init_poweroff();
	_exit(1);
}

void rng_seed(struct rng *r, uint64_t seed)
{
	/* splitmix64 once, so that neighbouring seeds do not give neighbouring streams; xorshift must not start at 0 */
	seed += 0x9e3779b97f4a7c15ull;
	seed = (seed ^ (seed >> 30)) * 0xbf58476d1ce4e5b9ull;
	seed = (seed ^ (seed >> 27)) * 0x94d049bb133111ebull;
	r->s = (seed ^ (seed >> 31)) | 1;
}

uint64_t rng_next(struct rng *r)
{
	r->s ^= r->s << 13;
	r->s ^= r->s >> 7;
	r->s ^= r->s << 17;
	return r->s;
}
