// SPDX-License-Identifier: GPL-2.0-only
/*
 * One ordinary thread on each CPU that sleeps and wants to run again. How long it waits is what any other task may wait, and
 * it is known while it waits: the thread says beforehand when it wants to be awake.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host.h"

#define MAX_CPUS 1024
#define PERIOD (50 * NSEC_PER_MSEC)
#define STACK (64 << 10)
#define SCHED_EXT 7

static struct probe {
	pthread_t thread;
	_Atomic uint64_t due;		/* when it wants to run; 0: it does not */
	_Atomic uint64_t longest;	/* wait that is over */
	int cpu;
	bool started;
} probes[MAX_CPUS];
static int count;
static atomic_bool over;
static bool want_ext;

static void *loop(void *arg)
{
	struct sched_param param = { 0 };
	struct probe *p = arg;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(p->cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
	sched_setscheduler(0, want_ext ? SCHED_EXT : SCHED_OTHER, &param);
	while (!atomic_load(&over)) {
		uint64_t due = now_ns() + PERIOD, waited;

		atomic_store(&p->due, due);
		sleep_until(due);
		waited = now_ns() - due;
		if (waited > atomic_load(&p->longest))
			atomic_store(&p->longest, waited);
	}
	atomic_store(&p->due, 0);
	return NULL;
}

int probes_start(bool partial)
{
	cpu_set_t allowed;
	pthread_attr_t a;

	want_ext = partial;
	atomic_store(&over, false);
	count = 0;
	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		return -errno;
	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, STACK);
	for (int c = 0; c < CPU_SETSIZE && count < MAX_CPUS; c++) {
		struct probe *p = &probes[count];
		int e;

		if (!CPU_ISSET(c, &allowed))
			continue;
		p->cpu = c;
		atomic_store(&p->due, 0);
		atomic_store(&p->longest, 0);
		e = pthread_create(&p->thread, &a, loop, p);
		if (e) {
			probes_stop();
			return -e;
		}
		p->started = true;
		count++;
	}
	return 0;
}

uint64_t probes_wait(int *cpu)
{
	uint64_t worst = 0, now = now_ns();

	*cpu = -1;
	for (int i = 0; i < count; i++) {
		uint64_t due = atomic_load(&probes[i].due), wait = atomic_exchange(&probes[i].longest, 0);

		if (due && now > due && now - due > wait)
			wait = now - due;
		if (wait > worst) {
			worst = wait;
			*cpu = probes[i].cpu;
		}
	}
	return worst;
}

/* After the scheduler has gone, so that all of them can run. */
void probes_stop(void)
{
	atomic_store(&over, true);
	for (int i = 0; i < count; i++)
		if (probes[i].started)
			pthread_join(probes[i].thread, NULL);
	for (int i = 0; i < count; i++)
		probes[i].started = false;
	count = 0;
}
