// SPDX-License-Identifier: GPL-2.0-only
/*
 * Threads for calls that may never come back. They exist before anything is attached, because making one is a fork,
 * and a fork asks the candidate (ops.init_task) and waits while a scheduler is being enabled or disabled.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "runner.h"

#define THREADS 10
#define STACK (1u << 20)

struct worker {
	pthread_t thread;
	pthread_mutex_t m;
	pthread_cond_t work, done;
	int (*fn)(void *);
	void *arg;
	int result;
	bool busy;
};

static struct worker workers[THREADS];

static void *loop(void *p)
{
	struct worker *w = p;

	set_fifo(0, PRIO_STEPS);
	pthread_mutex_lock(&w->m);
	for (;;) {
		int (*fn)(void *);

		while (!w->fn)
			pthread_cond_wait(&w->work, &w->m);
		fn = w->fn;
		pthread_mutex_unlock(&w->m);
		int r = fn(w->arg);

		pthread_mutex_lock(&w->m);
		w->fn = NULL;
		w->result = r;
		w->busy = false;
		pthread_cond_broadcast(&w->done);
	}
	return NULL;
}

void pool_start(void)
{
	pthread_condattr_t ca;
	pthread_attr_t ta;

	pthread_condattr_init(&ca);
	pthread_condattr_setclock(&ca, CLOCK_MONOTONIC);
	pthread_attr_init(&ta);
	pthread_attr_setstacksize(&ta, STACK);
	for (int i = 0; i < THREADS; i++) {
		struct worker *w = &workers[i];

		mutex_init_pi(&w->m);
		pthread_cond_init(&w->work, &ca);
		pthread_cond_init(&w->done, &ca);
		if (pthread_create(&w->thread, &ta, loop, w))
			die("cannot make a thread");
	}
	pthread_attr_destroy(&ta);
	pthread_condattr_destroy(&ca);
}

int pool_call(int (*fn)(void *), void *arg, uint64_t timeout_ms, int *result)
{
	uint64_t end = now_ns() + timeout_ms * NSEC_PER_MSEC;
	struct timespec ts = { .tv_sec = (time_t)(end / NSEC_PER_SEC), .tv_nsec = (long)(end % NSEC_PER_SEC) };

	for (int i = 0; i < THREADS; i++) {
		struct worker *w = &workers[i];
		int r = 0;

		pthread_mutex_lock(&w->m);
		if (w->busy) {
			pthread_mutex_unlock(&w->m);
			continue;
		}
		w->busy = true;
		w->arg = arg;
		w->fn = fn;
		pthread_cond_signal(&w->work);
		while (w->busy && !r)
			r = pthread_cond_timedwait(&w->done, &w->m, &ts);
		if (!w->busy) {
			r = 0;
			*result = w->result;
		}
		pthread_mutex_unlock(&w->m);
		return -r;
	}
	return -EBUSY;
}
