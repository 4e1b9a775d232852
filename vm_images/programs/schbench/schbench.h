/* SPDX-License-Identifier: GPL-2.0-only */
/* schbench: the benchmark's model in the testbed's own words; see README.md. */
#ifndef SCHBENCH_H
#define SCHBENCH_H

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define NSEC_PER_SEC	1000000000LL
#define NSEC_PER_USEC	1000LL

/*
 * Counts by logarithm: 64 steps in each power of two, so a percentile is at most 1.6 %
 * too high. One writer; a reader may be late by the sample that is being written.
 */
#define STEP_BITS	6
#define STEPS		(1 << STEP_BITS)
#define OCTAVES		(42 - STEP_BITS)	/* up to 73 minutes in nanoseconds */

struct histogram {
	unsigned int generation;
	uint64_t samples;
	uint64_t min;
	uint64_t max;
	uint32_t counts[OCTAVES * STEPS];
};

void histogram_clear(struct histogram *h);
void histogram_add(struct histogram *h, uint64_t value);
void histogram_merge(struct histogram *into, const struct histogram *from);
/* Smallest recorded step with at least @percent of the samples at or below it. */
uint64_t histogram_percentile(const struct histogram *h, double percent, uint64_t *below);

struct options {
	int message_threads;
	int workers;		/* for each message thread */
	int operations;
	int footprint_kb;
	int think_us;
	int auto_rps;		/* percent of all CPUs, 0 is off */
	int pipe_bytes;
	int64_t runtime_ns;
	int64_t warmup_ns;
	int64_t interval_ns;
	int64_t zero_ns;
	double rps;
	bool calibrate;
	bool locking;
	bool pin_message;
	bool pin_workers;
	cpu_set_t message_cpus;
	cpu_set_t worker_cpus;
	const char *json;
	const char *job_name;
	char command_line[512];
};

extern struct options options;

/* What one moment knows: all of it since the last clearing. */
struct totals {
	struct histogram wakeup;
	struct histogram request;
	uint64_t requests;
	uint64_t dropped;
	int64_t message_delay_ns;	/* mean wait for a CPU per time slice */
	int64_t worker_delay_ns;
};

int64_t now_ns(void);
void sleep_until(int64_t when);

void model_start(void);
void model_stop(void);
void model_clear(void);		/* begin all statistics anew */
void model_totals(struct totals *totals);
uint64_t model_requests(void);	/* finished since the start */
void model_set_rps(double rps);
double model_calibrate(int64_t runtime_ns);	/* microseconds for one request */

#endif
