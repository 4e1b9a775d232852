// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "host.h"

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

int64_t wall_s(void)
{
	return (int64_t)time(NULL);
}

void wall_text(int64_t s, char out[32])
{
	time_t t = (time_t)s;
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm))
		strcpy(out, "?");
}

static bool digits(const char **p, int n, int *value)
{
	*value = 0;
	for (; n--; (*p)++) {
		if (**p < '0' || **p > '9')
			return false;
		*value = *value * 10 + (**p - '0');
	}
	return true;
}

/* ISO 8601 with a zone, to the second */
bool wall_parse(const char *p, int64_t *s)
{
	int year, month, day, h, m, sec, zh = 0, zm = 0, sign = 1;
	struct tm tm = { 0 };

	if (!digits(&p, 4, &year) || *p++ != '-' || !digits(&p, 2, &month) || *p++ != '-' || !digits(&p, 2, &day) ||
	    (*p != 'T' && *p != ' ') || !digits((p++, &p), 2, &h) || *p++ != ':' || !digits(&p, 2, &m) || *p++ != ':' ||
	    !digits(&p, 2, &sec))
		return false;
	if (*p == '.')
		for (p++; *p >= '0' && *p <= '9'; p++)
			;
	if (*p == '+' || *p == '-') {
		sign = *p++ == '-' ? -1 : 1;
		if (!digits(&p, 2, &zh) || *p++ != ':' || !digits(&p, 2, &zm))
			return false;
	} else if (*p++ != 'Z') {
		return false;
	}
	if (*p || month < 1 || month > 12 || day < 1 || day > 31 || h > 23 || m > 59 || sec > 59 || zh > 23 || zm > 59)
		return false;
	tm.tm_year = year - 1900;
	tm.tm_mon = month - 1;
	tm.tm_mday = day;
	tm.tm_hour = h;
	tm.tm_min = m;
	tm.tm_sec = sec;
	*s = (int64_t)timegm(&tm) - sign * (zh * 3600 + zm * 60);
	return tm.tm_mday == day;	/* timegm makes the 2nd of March of the 30th of February */
}

int set_fifo(int prio)
{
	struct sched_param p = { .sched_priority = prio };

	/* by the system call, since it is this thread that is meant */
	return sched_setscheduler(0, prio ? SCHED_FIFO : SCHED_OTHER, &p) ? -errno : 0;
}

void hex(const uint8_t *in, size_t n, char *out)
{
	sodium_bin2hex(out, 2 * n + 1, in, n);
}

bool is_hex(const char *text, size_t n)
{
	return strlen(text) == n && strspn(text, "0123456789abcdef") == n;
}

void sha256_text(const void *data, size_t n, char out[HEX])
{
	uint8_t digest[crypto_hash_sha256_BYTES];

	crypto_hash_sha256(digest, data, n);
	hex(digest, sizeof(digest), out);
}

char *read_whole(int dirfd, const char *path, size_t limit, size_t *n)
{
	/* O_NONBLOCK: somebody may have put a fifo there */
	int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), e;
	struct stat st;
	char *buf;

	*n = 0;
	if (fd < 0)
		return NULL;
	if (fstat(fd, &st)) {
		e = errno;
	} else if (!S_ISREG(st.st_mode)) {
		e = EINVAL;
	} else if ((uint64_t)st.st_size > limit) {
		e = EFBIG;
	} else {
		buf = malloc(limit + 1 < (size_t)st.st_size + 4096 ? limit + 1 : (size_t)st.st_size + 4096);
		if (!buf)
			out_of_memory();
		for (e = 0;;) {
			/* never more than there was room for, however it grows */
			size_t room = (limit < (size_t)st.st_size + 4095 ? limit : (size_t)st.st_size + 4095) - *n;
			ssize_t r = room ? read(fd, buf + *n, room) : 0;

			if (r < 0 && errno == EINTR)
				continue;
			if (r < 0)
				e = errno;
			if (r <= 0)
				break;
			*n += (size_t)r;
		}
		if (!e) {
			buf[*n] = 0;
			close(fd);
			return buf;
		}
		free(buf);
	}
	close(fd);
	errno = e;
	return NULL;
}

ssize_t read_word(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t r;

	buf[0] = 0;
	if (fd < 0)
		return -errno;
	r = read(fd, buf, size - 1);
	if (r < 0)
		r = -errno;
	close(fd);
	buf[r > 0 ? r : 0] = 0;
	if (r > 0 && buf[r - 1] == '\n')
		buf[--r] = 0;
	return r;
}

uint64_t read_u64(const char *path, uint64_t fallback)
{
	char buf[64];

	if (read_word(path, buf, sizeof(buf)) <= 0 || buf[0] < '0' || buf[0] > '9')
		return fallback;
	return strtoull(buf, NULL, 10);
}

int write_word(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), e;

	if (fd < 0)
		return -errno;
	e = write_all(fd, value, strlen(value));
	close(fd);
	return e;
}

int write_all(int fd, const void *data, size_t n)
{
	const char *p = data;

	while (n) {
		ssize_t r = write(fd, p, n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		p += r;
		n -= (size_t)r;
	}
	return 0;
}

int sync_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), e;

	if (fd < 0)
		return -errno;
	e = fsync(fd) ? -errno : 0;
	close(fd);
	return e;
}

int write_atomic(const char *path, const void *data, size_t n, mode_t mode)
{
	char temporary[600], folder[600], *slash;
	int fd, e;

	snprintf(temporary, sizeof(temporary), "%s.%d.new", path, (int)getpid());
	copy_text(folder, sizeof(folder), path);
	slash = strrchr(folder, '/');
	if (!slash)
		return -EINVAL;
	*slash = 0;
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return -errno;
	e = write_all(fd, data, n);
	if (!e && fsync(fd))
		e = -errno;
	if (close(fd) && !e)
		e = -errno;
	if (!e && rename(temporary, path))
		e = -errno;
	if (e)
		unlink(temporary);
	return e ? e : sync_dir(folder);
}

int make_dirs(void)
{
	static const struct { const char *path; mode_t mode; } dirs[] = {
		{ STATE_DIR, 0755 }, { STAGED_DIR, 0711 }, { EVIDENCE_DIR, 0700 }, { RUN_DIR, 0755 },
	};

	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++)
		if (mkdir(dirs[i].path, dirs[i].mode) && errno != EEXIST)
			return -errno;
	return 0;
}

/* A file whose word counts must be one that nobody else could have written. */
bool owned_by_root(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_uid == OWNER && !(st.st_mode & (S_IWGRP | S_IWOTH));
}

void copy_text(char *to, size_t size, const char *from)
{
	size_t n = strlen(from);

	if (n >= size)
		n = size - 1;
	memmove(to, from, n);
	to[n] = 0;
}

void boot_id(char out[40])
{
	read_word(PROC_DIR "/sys/kernel/random/boot_id", out, 40);
}

/* Who asked, for the log only: proves nothing. */
const char *who(void)
{
	static char name[64];
	const char *user = getenv("SUDO_USER");

	if (!user || !*user || strlen(user) >= sizeof(name))
		snprintf(name, sizeof(name), "uid %d", (int)getuid());
	else
		snprintf(name, sizeof(name), "%s", user);
	for (char *p = name; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	return name;
}

json *complaint(const char *code, const char *hint, const char *fmt, va_list ap)
{
	json *one = json_object_new_object();
	char message[1024];

	vsnprintf(message, sizeof(message), fmt, ap);
	json_put_text(one, "code", code);
	json_put_text(one, "message", message);
	json_put_text(one, "hint", hint);
	return one;
}

void fail(enum exit_code code, const char *name, const char *hint, const char *fmt, ...)
{
	json *document = json_object_new_object();
	va_list ap;

	va_start(ap, fmt);
	json_object_object_add(document, "error", complaint(name, hint, fmt, ap));
	va_end(ap);
	json_print(document);
	exit(code);
}

void out_of_memory(void)
{
	static const char text[] =
		"{\"error\":{\"code\":\"memory\",\"message\":\"out of memory\",\"hint\":\"free some\"}}\n";

	if (write(1, text, sizeof(text) - 1) < 0)
		_exit(EXIT_HOST);
	_exit(EXIT_HOST);
}
