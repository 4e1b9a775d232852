// SPDX-License-Identifier: GPL-2.0-only
/*
 * Writes log and record while a candidate runs. A write that reaches a disk waits for ordinary tasks of the kernel, which the
 * candidate may keep from running; the watcher must not wait with it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"

#define DEPTH 32
#define STACK (256 << 10)

static struct note { const char *what; json *fields; const char *path; struct record record; } notes[DEPTH];
static _Atomic unsigned head, tail;
static atomic_int failed;

static void *loop(void *unused)
{
	(void)unused;
	for (;;) {
		unsigned at = atomic_load(&tail);
		struct note *n = &notes[at % DEPTH];
		int e;

		if (at == atomic_load(&head)) {
			sleep_ms(10);
			continue;
		}
		e = n->what ? audit(n->what, n->fields) : record_write(n->path, &n->record);
		if (e)
			atomic_store(&failed, -e);
		atomic_store(&tail, at + 1);
	}
	return NULL;
}

int scribe_start(void)
{
	pthread_attr_t a;
	pthread_t t;

	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, STACK);
	return -pthread_create(&t, &a, loop, NULL);
}

static struct note *next(void)
{
	unsigned at = atomic_load(&head);

	if (at - atomic_load(&tail) == DEPTH) {
		atomic_store(&failed, EAGAIN);
		return NULL;
	}
	memset(&notes[at % DEPTH], 0, sizeof(notes[0]));
	return &notes[at % DEPTH];
}

void scribe_audit(const char *what, json *fields)
{
	struct note *n = next();

	if (!n) {
		json_object_put(fields);
		return;
	}
	n->what = what;
	n->fields = fields;
	atomic_fetch_add(&head, 1);
}

void scribe_record(const char *path, const struct record *r)
{
	struct note *n = next();

	if (!n)
		return;
	n->path = path;
	n->record = *r;
	atomic_fetch_add(&head, 1);
}

/* 0, or the errno of a write that failed; told once. */
int scribe_failed(void)
{
	return atomic_exchange(&failed, 0);
}

bool scribe_flush(uint64_t ms)
{
	uint64_t end = now_ns() + ms * NSEC_PER_MSEC;

	while (atomic_load(&tail) != atomic_load(&head)) {
		if (now_ns() > end)
			return false;
		sleep_ms(2);
	}
	return true;
}
