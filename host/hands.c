// SPDX-License-Identifier: GPL-2.0-only
/*
 * A thread for calls that may not return (attach, detach), so that the watcher goes on looking while they are made. It is
 * as real-time as the watcher: what takes a scheduler back must not wait for that scheduler.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "host.h"

#define STACK (1 << 20)	/* libbpf's own needs; all of it is locked */

static pthread_mutex_t lock;
static pthread_cond_t wanted = PTHREAD_COND_INITIALIZER;
static int (*call)(void *);
static void *argument;
static int answer;
static atomic_bool busy;

static void *loop(void *unused)
{
	(void)unused;
	for (;;) {
		pthread_mutex_lock(&lock);
		while (!call)
			pthread_cond_wait(&wanted, &lock);
		int (*fn)(void *) = call;
		pthread_mutex_unlock(&lock);
		answer = fn(argument);
		call = NULL;
		atomic_store(&busy, false);
	}
	return NULL;
}

int hands_start(void)
{
	pthread_mutexattr_t m;
	pthread_attr_t a;
	pthread_t t;

	pthread_mutexattr_init(&m);
	pthread_mutexattr_setprotocol(&m, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(&lock, &m);
	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, STACK);
	/* inherits the caller's priority */
	return -pthread_create(&t, &a, loop, NULL);
}

int hands_begin(int (*fn)(void *), void *arg)
{
	if (atomic_load(&busy))
		return -EBUSY;
	atomic_store(&busy, true);
	pthread_mutex_lock(&lock);
	argument = arg;
	call = fn;
	pthread_cond_signal(&wanted);
	pthread_mutex_unlock(&lock);
	return 0;
}

bool hands_done(int *result)
{
	if (atomic_load(&busy))
		return false;
	*result = answer;
	return true;
}
