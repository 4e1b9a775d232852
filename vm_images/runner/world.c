// SPDX-License-Identifier: GPL-2.0-only
/*
 * Before the job: the point at which the machine may be saved and loaded any number of times, and what differs between
 * two loads of it besides their jobs. Whatever varies here varies between two boots of one real machine too, and a
 * scheduler must not depend on it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "runner.h"

#define SETTLE_MS 500		/* for what the kernel still does after boot: deferred probes, RCU, the console */
#define PHASE_NS (10 * NSEC_PER_MSEC)	/* several ticks, whatever CONFIG_HZ is */
#define DATES_S (3ull * 365 * 86400)
#define FIRST_PID 300
#define PIDS 30000
#define READY "\ntestbed-runner: ready\n"

/*
 * Without a job nobody wants this machine to run yet: it is being prepared, and stops here. Loaded from the snapshot
 * that the host then takes, it goes on behind the stop, and finds a job.
 */
void warm_start(void)
{
	size_t n;
	char *text = fwcfg_read("opt/testbed/job", &n);

	if (text) {
		free(text);
		return;
	}
	sleep_ms(SETTLE_MS);
	debugcon_write(READY, sizeof(READY) - 1);
	machine_stop();
}

static void mix_randomness(uint64_t seed)
{
	struct { struct rand_pool_info info; uint64_t words[4]; } mix;
	struct rng r;
	int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return;
	rng_seed(&r, seed);
	mix.info.entropy_count = sizeof(mix.words) * 8;
	mix.info.buf_size = sizeof(mix.words);
	for (int i = 0; i < 4; i++)
		mix.words[i] = rng_next(&r);
	if (!ioctl(fd, RNDADDENTROPY, &mix))
		ioctl(fd, RNDRESEEDCRNG);
	close(fd);
}

/* Date, process numbers, randomness of the kernel (addresses, hashes), and where in a tick the job begins. */
void world_vary(uint64_t seed)
{
	struct timespec date;
	struct rng r;
	char pid[24];

	rng_seed(&r, seed ^ 0x776f726c64ull);
	clock_gettime(CLOCK_REALTIME, &date);
	date.tv_sec += (time_t)(rng_next(&r) % DATES_S);
	clock_settime(CLOCK_REALTIME, &date);
	snprintf(pid, sizeof(pid), "%llu", (unsigned long long)(FIRST_PID + rng_next(&r) % PIDS));
	write_file("/proc/sys/kernel/ns_last_pid", pid);
	mix_randomness(rng_next(&r));
	sleep_until(now_ns() + rng_next(&r) % PHASE_NS);
}

/*
 * The same stop, with a candidate attached: whoever is loaded from here is spared the verifier's work and finds a job of
 * his own, whose first step is the attach that has been made. Nothing is said between the two streams.
 */
int world_saved(char *why, size_t whylen)
{
	struct job next;
	char *text;
	size_t len;

	stream_hold();
	debugcon_write(READY, sizeof(READY) - 1);
	machine_stop();
	stream_again();
	text = fwcfg_read("opt/testbed/job", &len);
	if (!text || job_parse(text, &next, why, whylen))
		return -EINVAL;
	world_vary(next.seed);
	/* The monitor reads it meanwhile, and must not find the old time under the new limit. */
	monitor_again(next.watchdog_ms);
	job = next;
	told_job();
	oracle_start();
	scx_keep();
	return 0;
}
