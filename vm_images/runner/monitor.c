// SPDX-License-Identifier: GPL-2.0-only
/*
 * The monitor: SCHED_FIFO 99, locked memory, nothing in its loop that waits for anybody. It sends the beats, feeds the
 * watchdog, passes on what others say, sees the candidate leave, and ends the job at its limit.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/watchdog.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "runner.h"

#define TICK (50 * NSEC_PER_MSEC)
#define SCAN (500 * NSEC_PER_MSEC)
#define AFTER_LIMIT (2 * NSEC_PER_SEC)	/* for the steps to notice that the job is over */

static _Atomic bool over, steps_done, steps_ok;
static _Atomic uint64_t signals;
static _Atomic uint64_t started;
static int watchdog_fd = -1;

bool job_over(void)
{
	return atomic_load(&over);
}

void monitor_steps_done(bool ok)
{
	atomic_store(&steps_ok, ok);
	atomic_store(&steps_done, true);
}

static void on_signal(int sig, siginfo_t *si, void *ctx)
{
	(void)ctx;
	atomic_store(&signals, (atomic_load(&signals) + (1ull << 32)) >> 32 << 32 | (uint64_t)(sig & 0xff) << 24 |
				       ((uint64_t)si->si_pid & 0xffffff));
}

void watchdog_arm(uint64_t ms)
{
	int seconds = (int)((ms + 999) / 1000);

	watchdog_fd = open("/dev/watchdog", O_WRONLY | O_CLOEXEC);
	if (watchdog_fd < 0 || ioctl(watchdog_fd, WDIOC_SETTIMEOUT, &seconds)) {
		struct json j;
		char text[128];

		/* said aloud, because without it a machine that locks up is only seen by the host's patience */
		snprintf(text, sizeof(text), "no watchdog: %s: %s\n", watchdog_fd < 0 ? "/dev/watchdog" : "timeout", errno_name(errno));
		ev_begin(&j, "log");
		ev_str(&j, "source", "runner");
		ev_u64(&j, "lost", 0);
		ev_str(&j, "text", text);
		ev_send(&j);
	}
}

void watchdog_disarm(void)
{
	if (watchdog_fd < 0)
		return;
	if (write(watchdog_fd, "V", 1) == 1)
		close(watchdog_fd);
	watchdog_fd = -1;
}

void monitor_start(void)
{
	static const int watched[] = { SIGHUP, SIGINT, SIGTERM, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM };
	struct sigaction sa;

	memset(&sa, 0, sizeof(sa));
	sa.sa_sigaction = on_signal;
	sa.sa_flags = SA_SIGINFO | SA_RESTART;
	for (size_t i = 0; i < sizeof(watched) / sizeof(watched[0]); i++)
		sigaction(watched[i], &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	monitor_again(job.watchdog_ms);
}

void monitor_again(uint64_t watchdog_ms)
{
	atomic_store(&started, now_ns());
	if (watchdog_ms)
		watchdog_arm(watchdog_ms);
}

static uint64_t runnable(void)
{
	char buf[128];
	int n = 0;

	if (read_file("/proc/loadavg", buf, sizeof(buf)) > 0)
		sscanf(buf, "%*s %*s %*s %d/", &n);
	/* without the one who is asking */
	return n > 0 ? (uint64_t)n - 1 : 0;
}

static void beat(uint64_t due)
{
	struct scx_state s;
	struct json j;
	uint64_t now = now_ns(), late = now > due ? now - due : 0;

	if (watchdog_fd >= 0 && write(watchdog_fd, "\0", 1) != 1) {
		/* the missing beats of the watchdog are the host's to see */
	}
	scx_read(&s);
	ev_begin(&j, "beat");
	ev_str(&j, "state", s.state);
	ev_str(&j, "ops", s.ops);
	ev_u64(&j, "enable_seq", s.enable_seq);
	ev_u64(&j, "rejected", s.rejected);
	ev_u64(&j, "runnable", runnable());
	ev_u64(&j, "worst_us", loads_worst_wait(now) / 1000);
	ev_milli(&j, "late_us", late);
	ev_send(&j);
}

static void report_signals(void)
{
	static uint64_t told;
	uint64_t s = atomic_load(&signals);
	struct json j;
	char text[128];

	if (s >> 32 == told)
		return;
	told = s >> 32;
	snprintf(text, sizeof(text), "the runner was signalled: %llu times, last signal %d from pid %d", (unsigned long long)told,
		 (int)(s >> 24 & 0xff), (int)(s & 0xffffff));
	ev_begin(&j, "tampered");
	ev_str(&j, "what", text);
	ev_send(&j);
}

void monitor_run(void)
{
	uint64_t next = now_ns(), next_beat = next, next_scan = next + SCAN, over_at = 0;
	uint64_t period = (job.heartbeat_ms ? job.heartbeat_ms : 250) * NSEC_PER_MSEC;
	bool starves = false;
	struct json j;

	while (!atomic_load(&steps_done)) {
		uint64_t now;

		children_reap();
		if (now_ns() >= next_beat) {
			beat(next_beat);
			next_beat += period;
			if (next_beat <= now_ns())
				next_beat = now_ns() + period;
		}
		children_drain();
		kernel_drain();
		scx_watch();
		children_report_deaths();
		report_signals();
		now = now_ns();
		if (job.starved_ms && now >= next_scan) {
			starves |= starving_scan(job.starved_ms);
			next_scan += SCAN;
			if (next_scan <= now)
				next_scan = now + SCAN;
		}
		if (job.limit_ms && !over_at && now - atomic_load(&started) >= job.limit_ms * NSEC_PER_MSEC) {
			ev_begin(&j, "limit");
			ev_send(&j);
			atomic_store(&over, true);
			over_at = now;
		}
		oracle_watch(starves || over_at || scx_has_left());
		if (over_at && now - over_at > AFTER_LIMIT)
			break;
		/* wakes for a beat at its own time, not at the next tick's */
		next += TICK;
		if (next <= now)
			next = now + TICK;
		sleep_until(next < next_beat ? next : next_beat);
	}
	children_drain();
	kernel_drain();
	scx_watch();
	oracle_end();
	log_close(&log_kernel);
	log_close(&log_libbpf);
	log_close(&log_verifier);
	log_close(&log_program);
	ev_begin(&j, "end");
	ev_bool(&j, "ok", atomic_load(&steps_done) && atomic_load(&steps_ok) && !over_at);
	ev_send(&j);
}
