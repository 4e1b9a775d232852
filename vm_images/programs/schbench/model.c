// SPDX-License-Identifier: GPL-2.0-only
/*
 * Message threads and workers.
 *
 * A worker asks its message thread for work and sleeps; the message thread wakes
 * everybody who asked. The worker then thinks (sleeps), and multiplies matrices under
 * the lock of the CPU that it is on: whoever is preempted there makes the next one on
 * that CPU spin. With a rate the message thread hands out requests at fixed times
 * instead, in turn, and a request's latency counts from its own time.
 */
#include <errno.h>
#include <linux/futex.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "schbench.h"

#define QUEUE_LENGTH	1024	/* requests that may wait for one worker */
#define STACK_BYTES	(256 * 1024)

struct worker {
	_Atomic(struct worker *) next;	/* in its message thread's list */
	struct message_thread *boss;
	atomic_int awake;		/* futex */
	atomic_int tid;
	_Atomic int64_t woken_at;
	_Atomic uint64_t finished;
	struct histogram wakeup;
	struct histogram request;
	uint64_t *matrix;
	char *mailbox;
	char *letter;
	_Atomic unsigned int put, taken;
	int64_t queue[QUEUE_LENGTH];
};

struct message_thread {
	_Atomic(struct worker *) asking;
	atomic_int pending;		/* futex */
	atomic_int tid;
	_Atomic uint64_t dropped;
	struct worker *workers;
};

static struct {
	atomic_flag flag;
	char padding[63];
} cpu_locks[CPU_SETSIZE];

static struct message_thread *message_threads;
static unsigned int matrix_size;
static atomic_uint generation;
static atomic_int alive;
static atomic_bool stopping;
static _Atomic double interval_between;	/* nanoseconds between requests of one message thread */

int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

void sleep_until(int64_t when)
{
	struct timespec t = { when / NSEC_PER_SEC, when % NSEC_PER_SEC };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

static void *allocate(size_t bytes)
{
	void *memory = NULL;

	if (posix_memalign(&memory, 64, bytes)) {
		fprintf(stderr, "schbench: no memory\n");
		exit(1);
	}
	memset(memory, 0, bytes);
	return memory;
}

static void futex_wait_while_zero(atomic_int *futex)
{
	while (atomic_load(futex) == 0)
		syscall(SYS_futex, futex, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

static void futex_wake(atomic_int *futex)
{
	syscall(SYS_futex, futex, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void record(struct histogram *h, int64_t ns)
{
	unsigned int now = atomic_load(&generation);

	if (h->generation != now) {
		h->generation = now;
		histogram_clear(h);
	}
	histogram_add(h, ns > 0 ? ns : 0);
}

static void multiply(struct worker *w)
{
	const size_t n = matrix_size;
	const uint64_t *a = w->matrix;
	uint64_t *product = w->matrix + 2 * n * n;

	for (size_t i = 0; i < n; i++, a += n)
		for (size_t j = 0; j < n; j++) {
			const uint64_t *b = w->matrix + n * n + j;
			uint64_t sum = 0;

			for (size_t k = 0; k < n; k++, b += n)
				sum += a[k] * *b;
			*product++ = sum;
		}
	__asm__ volatile("" : : "r"(w->matrix) : "memory");
}

/* The lock of the CPU that we are on, as far as one can know that. */
static int lock_cpu(void)
{
	for (;;) {
		int cpu = sched_getcpu();

		if (cpu < 0 || cpu >= CPU_SETSIZE)
			cpu = 0;
		if (!atomic_flag_test_and_set_explicit(&cpu_locks[cpu].flag,
						       memory_order_acquire))
			return cpu;
		__builtin_ia32_pause();
	}
}

static void do_request(struct worker *w)
{
	int cpu = -1;

	if (options.think_us && !options.calibrate)
		sleep_until(now_ns() + options.think_us * NSEC_PER_USEC);
	if (options.locking)
		cpu = lock_cpu();
	for (int i = 0; i < options.operations; i++)
		multiply(w);
	if (cpu >= 0)
		atomic_flag_clear_explicit(&cpu_locks[cpu].flag, memory_order_release);
}

static void ask(struct worker *w)
{
	struct message_thread *boss = w->boss;
	struct worker *head = atomic_load(&boss->asking);

	do
		atomic_store(&w->next, head);
	while (!atomic_compare_exchange_weak(&boss->asking, &head, w));
	if (atomic_exchange(&boss->pending, 1) == 0)
		futex_wake(&boss->pending);
}

static void wake(struct worker *w)
{
	atomic_store(&w->woken_at, now_ns());
	if (atomic_exchange(&w->awake, 1) == 0)
		futex_wake(&w->awake);
}

static void sleep_until_woken(struct worker *w)
{
	futex_wait_while_zero(&w->awake);
	if (!atomic_load(&stopping))
		record(&w->wakeup, now_ns() - atomic_load(&w->woken_at));
}

static void finish(struct worker *w, int64_t began_at)
{
	record(&w->request, now_ns() - began_at);
	atomic_fetch_add(&w->finished, 1);
}

static void work_on_demand(struct worker *w)
{
	int64_t began_at;

	atomic_store(&w->awake, 0);
	ask(w);
	sleep_until_woken(w);
	if (options.pipe_bytes) {
		memcpy(w->letter, w->mailbox, options.pipe_bytes);
		__asm__ volatile("" : : "r"(w->letter) : "memory");
		atomic_fetch_add(&w->finished, 1);
		return;
	}
	began_at = now_ns();
	do_request(w);
	finish(w, began_at);
}

static void work_at_a_rate(struct worker *w)
{
	unsigned int next = atomic_load(&w->taken);

	if (next == atomic_load(&w->put)) {
		atomic_store(&w->awake, 0);
		/* A request may have come in between, with a wake-up that was not needed. */
		if (next == atomic_load(&w->put))
			sleep_until_woken(w);
		return;
	}
	do_request(w);
	finish(w, w->queue[next % QUEUE_LENGTH]);
	atomic_store(&w->taken, next + 1);
}

static void *worker_main(void *argument)
{
	struct worker *w = argument;

	pthread_setname_np(pthread_self(), "schbench-work");
	atomic_store(&w->tid, gettid());
	if (options.pin_workers)
		sched_setaffinity(0, sizeof(options.worker_cpus), &options.worker_cpus);
	while (!atomic_load(&stopping)) {
		if (atomic_load(&interval_between) > 0)
			work_at_a_rate(w);
		else
			work_on_demand(w);
	}
	atomic_fetch_sub(&alive, 1);
	return NULL;
}

static void wake_who_asked(struct message_thread *m)
{
	struct worker *w;

	futex_wait_while_zero(&m->pending);
	atomic_store(&m->pending, 0);
	w = atomic_exchange(&m->asking, NULL);
	while (w) {
		struct worker *next = atomic_load(&w->next);

		if (options.pipe_bytes)
			memset(w->mailbox, 1, options.pipe_bytes);
		wake(w);
		w = next;
	}
}

static void hand_out(struct message_thread *m, unsigned int turn, int64_t at)
{
	struct worker *w = &m->workers[turn % options.workers];
	unsigned int put = atomic_load(&w->put);

	if (put - atomic_load(&w->taken) >= QUEUE_LENGTH) {
		atomic_fetch_add(&m->dropped, 1);
		return;
	}
	w->queue[put % QUEUE_LENGTH] = at;
	atomic_store(&w->put, put + 1);
	if (atomic_load(&w->awake) == 0)
		wake(w);
}

static void *message_main(void *argument)
{
	struct message_thread *m = argument;
	double next_at = now_ns();
	unsigned int turn = 0;

	pthread_setname_np(pthread_self(), "schbench-msg");
	atomic_store(&m->tid, gettid());
	if (options.pin_message)
		sched_setaffinity(0, sizeof(options.message_cpus), &options.message_cpus);
	while (!atomic_load(&stopping)) {
		double interval = atomic_load(&interval_between);

		if (interval <= 0) {
			wake_who_asked(m);
			continue;
		}
		next_at += interval;
		sleep_until(next_at);
		hand_out(m, turn++, next_at);
	}
	atomic_fetch_sub(&alive, 1);
	return NULL;
}

static void start_thread(void *(*main)(void *), void *argument)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int error;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	atomic_fetch_add(&alive, 1);
	error = pthread_create(&thread, &attributes, main, argument);
	if (error) {
		fprintf(stderr, "schbench: can't start a thread: %s\n", strerror(error));
		exit(1);
	}
	pthread_attr_destroy(&attributes);
}

static void prepare(struct worker *w, struct message_thread *boss)
{
	unsigned int cells = matrix_size * matrix_size;

	w->boss = boss;
	w->matrix = allocate(3 * cells * sizeof(*w->matrix));
	for (unsigned int i = 0; i < 2 * cells; i++)
		w->matrix[i] = i * 2654435761u;
	if (options.pipe_bytes) {
		w->mailbox = allocate(options.pipe_bytes);
		w->letter = allocate(options.pipe_bytes);
	}
}

static void size_matrices(void)
{
	matrix_size = sqrt(options.footprint_kb * 1024.0 / 3 / sizeof(uint64_t));
	if (matrix_size < 1)
		matrix_size = 1;
}

void model_start(void)
{
	size_matrices();
	if (options.rps > 0)
		model_set_rps(options.rps);
	message_threads = allocate(options.message_threads * sizeof(*message_threads));
	for (int i = 0; i < options.message_threads; i++) {
		struct message_thread *m = &message_threads[i];

		m->workers = allocate(options.workers * sizeof(*m->workers));
		for (int j = 0; j < options.workers; j++)
			prepare(&m->workers[j], m);
	}
	for (int i = 0; i < options.message_threads; i++) {
		start_thread(message_main, &message_threads[i]);
		for (int j = 0; j < options.workers; j++)
			start_thread(worker_main, &message_threads[i].workers[j]);
	}
}

/* Ends the threads that still run; a starved one must not keep the figures back. */
void model_stop(void)
{
	int64_t until = now_ns() + NSEC_PER_SEC;

	atomic_store(&stopping, true);
	while (atomic_load(&alive) > 0 && now_ns() < until) {
		for (int i = 0; i < options.message_threads; i++) {
			atomic_store(&message_threads[i].pending, 1);
			futex_wake(&message_threads[i].pending);
			for (int j = 0; j < options.workers; j++)
				wake(&message_threads[i].workers[j]);
		}
		sleep_until(now_ns() + NSEC_PER_SEC / 100);
	}
}

void model_clear(void)
{
	atomic_fetch_add(&generation, 1);
}

void model_set_rps(double rps)
{
	options.rps = rps;
	atomic_store(&interval_between, NSEC_PER_SEC * options.message_threads / rps);
}

uint64_t model_requests(void)
{
	uint64_t sum = 0;

	for (int i = 0; i < options.message_threads; i++)
		for (int j = 0; j < options.workers; j++)
			sum += atomic_load(&message_threads[i].workers[j].finished);
	return sum;
}

static void add_delay(int tid, uint64_t *delay, uint64_t *slices)
{
	unsigned long long ran, waited, count;
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/schedstat", tid);
	file = fopen(path, "re");
	if (!file)
		return;
	if (fscanf(file, "%llu %llu %llu", &ran, &waited, &count) == 3) {
		*delay += waited;
		*slices += count;
	}
	fclose(file);
}

void model_totals(struct totals *totals)
{
	uint64_t boss_delay = 0, boss_slices = 0, delay = 0, slices = 0;
	unsigned int now = atomic_load(&generation);

	memset(totals, 0, sizeof(*totals));
	for (int i = 0; i < options.message_threads; i++) {
		struct message_thread *m = &message_threads[i];

		add_delay(atomic_load(&m->tid), &boss_delay, &boss_slices);
		totals->dropped += atomic_load(&m->dropped);
		for (int j = 0; j < options.workers; j++) {
			struct worker *w = &m->workers[j];

			add_delay(atomic_load(&w->tid), &delay, &slices);
			if (w->wakeup.generation == now)
				histogram_merge(&totals->wakeup, &w->wakeup);
			if (w->request.generation == now)
				histogram_merge(&totals->request, &w->request);
		}
	}
	totals->requests = model_requests();
	totals->message_delay_ns = boss_slices ? boss_delay / boss_slices : 0;
	totals->worker_delay_ns = slices ? delay / slices : 0;
}

double model_calibrate(int64_t runtime_ns)
{
	struct worker *w = allocate(sizeof(*w));
	int64_t began_at, now;
	uint64_t requests = 0;

	size_matrices();
	prepare(w, NULL);
	began_at = now_ns();
	do {
		do_request(w);
		requests++;
		now = now_ns();
	} while (now - began_at < runtime_ns);
	return (double)(now - began_at) / requests / NSEC_PER_USEC;
}
