// SPDX-License-Identifier: GPL-2.0-only
/*
 * The log: one line for everything that was done, each with the hash of the line before, so that no line can be changed or
 * taken out without breaking the chain. A line that a power cut tore stays, and the next one says so.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host.h"

#define MAX_LINE (64 << 10)
#define RESERVE (1 << 20)
#define FIRST "0000000000000000000000000000000000000000000000000000000000000000"

struct walk {
	uint64_t seq;
	char prev[HEX];	/* hash of the last line, whatever it is */
	int lines, torn, broken;
	bool pending;	/* the last line can't be read, which is fine only if the next one says so */
	bool open_end;	/* the last line has no line break */
};

static void one_line(struct walk *w, const char *line, size_t n, void (*each)(json *, void *), void *arg)
{
	json *o = json_strict(line, n), *seq = json_get(o, "seq", json_type_int);
	const char *prev = json_text(o, "prev");

	w->lines++;
	if (!seq || !prev || !json_text(o, "what")) {
		if (w->pending && !w->broken)
			w->broken = w->lines - 1;
		w->pending = true;
	} else {
		bool mends = json_object_get_boolean(json_get(o, "torn", json_type_boolean));

		if (!w->broken && (strcmp(prev, w->prev) || json_object_get_uint64(seq) != w->seq + 1 || w->pending != mends))
			w->broken = w->lines - w->pending;
		w->torn += w->pending;
		w->pending = false;
		w->seq = json_object_get_uint64(seq);
		if (each && !w->broken)
			each(o, arg);
	}
	sha256_text(line, n, w->prev);
	json_object_put(o);
}

static int walk(int fd, struct walk *w, void (*each)(json *, void *), void *arg)
{
	int copy = dup(fd);
	FILE *f = copy >= 0 ? fdopen(copy, "r") : NULL;
	char *line = NULL;
	size_t room = 0;
	ssize_t n;

	memset(w, 0, sizeof(*w));
	strcpy(w->prev, FIRST);
	if (!f)
		return -errno;
	rewind(f);
	while ((n = getline(&line, &room, f)) > 0) {
		w->open_end = line[n - 1] != '\n';
		one_line(w, line, (size_t)(w->open_end ? n : n - 1), each, arg);
	}
	w->torn += w->pending;
	free(line);
	fclose(f);
	return 0;
}

int audit(const char *what, json *fields)
{
	json *o = json_object_new_object();
	char time[32], boot[40], *text;
	const char *plain;
	struct walk w;
	struct stat st;
	size_t n;
	int fd = open(AUDIT_FILE, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600), e, flags;

	if (fd < 0) {
		e = -errno;
		json_object_put(o);
		json_object_put(fields);
		return e;
	}
	/* Where the file system can: nobody rewrites it, not even by mistake. */
	if (!ioctl(fd, FS_IOC_GETFLAGS, &flags) && !(flags & FS_APPEND_FL)) {
		flags |= FS_APPEND_FL;
		ioctl(fd, FS_IOC_SETFLAGS, &flags);
	}
	e = flock(fd, LOCK_EX) || fstat(fd, &st) ? -errno : walk(fd, &w, NULL, NULL);
	if (e)
		goto out;
	wall_text(wall_s(), time);
	boot_id(boot);
	json_put_u64(o, "seq", w.seq + 1);
	json_put_text(o, "time", time);
	json_put_text(o, "boot", boot);
	json_put_text(o, "prev", w.prev);
	json_put_text(o, "what", what);
	json_put_text(o, "by", who());
	if (w.pending)
		json_put_bool(o, "torn", true);
	if (fields) {
		json_object_object_foreach(fields, key, value)
			json_object_object_add(o, key, json_object_get(value));
	}
	plain = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
	n = strlen(plain);
	text = malloc(n + 3);
	if (!text)
		out_of_memory();
	n = (size_t)sprintf(text, "%s%s\n", w.open_end ? "\n" : "", plain);
	e = n > MAX_LINE ? -EMSGSIZE : write_all(fd, text, n);
	free(text);
	if (!e && fsync(fd))
		e = -errno;
	if (!e && !st.st_size)
		e = sync_dir(STATE_DIR);
out:
	close(fd);
	json_object_put(o);
	json_object_put(fields);
	return e;
}

int audit_walk(void (*each)(json *line, void *arg), void *arg, int *torn, int *lines)
{
	int fd = open(AUDIT_FILE, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct walk w;

	*torn = *lines = 0;
	if (fd < 0)
		return 0;
	flock(fd, LOCK_SH);
	walk(fd, &w, each, arg);
	close(fd);
	*torn = w.torn;
	*lines = w.lines;
	return w.broken;
}

/* ---- room for what must be written when the disk is full ---- */

int reserve_make(void)
{
	int fd = open(RESERVE_FILE, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600), e;

	if (fd < 0)
		return -errno;
	e = posix_fallocate(fd, 0, RESERVE);
	close(fd);
	if (e)
		unlink(RESERVE_FILE);
	return -e;
}

void reserve_give(void)
{
	unlink(RESERVE_FILE);
}
