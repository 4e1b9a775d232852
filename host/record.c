// SPDX-License-Identifier: GPL-2.0-only
/* What is supposed to run here, and who is at it. What runs in truth only the kernel says (scx.c). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "host.h"

#define MAX_RECORD (16 << 10)

static void take(json *o, const char *name, char *to, size_t n)
{
	const char *text = json_text(o, name);

	copy_text(to, n, text ? text : "");
}

int record_read(const char *path, struct record *r)
{
	size_t n;
	char *data = read_whole(AT_FDCWD, path, MAX_RECORD, &n);
	json *o;
	int e = -errno;

	memset(r, 0, sizeof(*r));
	if (!data)
		return e;
	o = json_strict(data, n);
	free(data);
	take(o, "id", r->id, sizeof(r->id));
	take(o, "subject", r->subject, sizeof(r->subject));
	take(o, "case", r->case_id, sizeof(r->case_id));
	take(o, "previous", r->previous, sizeof(r->previous));
	take(o, "by", r->by, sizeof(r->by));
	take(o, "boot", r->boot, sizeof(r->boot));
	take(o, "ops", r->ops, sizeof(r->ops));
	take(o, "stage", r->stage, sizeof(r->stage));
	take(o, "phase", r->phase, sizeof(r->phase));
	take(o, "limit", r->limit, sizeof(r->limit));
	take(o, "message", r->kernel_end, sizeof(r->kernel_end));
	r->started = json_object_get_int64(json_get(o, "started", json_type_int));
	r->since = json_object_get_int64(json_get(o, "since", json_type_int));
	r->enable_seq = json_object_get_uint64(json_get(o, "enable_seq", json_type_int));
	json_object_put(o);
	return is_hex(r->id, 64) && r->phase[0] ? 0 : -EBADMSG;
}

int record_write(const char *path, const struct record *r)
{
	json *o = json_object_new_object();
	size_t n;
	char *text;
	int e;

	json_put_text(o, "schema", "testbed.host-record/1");
	json_put_text(o, "id", r->id);
	json_put_text(o, "subject", r->subject);
	json_put_text(o, "case", r->case_id);
	json_put_text(o, "previous", r->previous);
	json_put_text(o, "by", r->by);
	json_put_text(o, "boot", r->boot);
	json_put_text(o, "ops", r->ops);
	json_put_text(o, "stage", r->stage);
	json_put_text(o, "phase", r->phase);
	json_put_text(o, "limit", r->limit);
	json_put_text(o, "message", r->kernel_end);
	json_put_i64(o, "started", r->started);
	json_put_i64(o, "since", r->since);
	json_put_u64(o, "enable_seq", r->enable_seq);
	text = json_canonical(o, &n);
	e = write_atomic(path, text, n, 0644);
	free(text);
	json_object_put(o);
	return e;
}

int lock_take(const char *path, const char *words, char *holder, size_t n)
{
	int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600), e;

	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		e = -errno;
		if (holder)
			read_word(path, holder, n);
		close(fd);
		return e;
	}
	/* for people: a lock is held by who holds it, whatever the file says */
	if (ftruncate(fd, 0) || write_all(fd, words, strlen(words))) {
		e = -errno;
		close(fd);
		return e ? e : -EIO;
	}
	return fd;
}

bool watcher_alive(void)
{
	int fd = open(WATCHER_FILE, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	bool alive = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB);

	if (fd >= 0)
		close(fd);
	return alive;
}
