// SPDX-License-Identifier: GPL-2.0-only
/*
 * testbed-runner: as /init of the guest, or as a child of a guest's init (live back end). The same binary, started with
 * a mode word, is also every process that the runner makes (load, exec, program, probe).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "runner.h"

void hello(struct json *j)
{
	struct utsname u;
	unsigned char cpus[1024];
	char buf[1024], clock[64] = "", *p;
	struct scx_state s;
	uint64_t kb = 0;

	uname(&u);
	if (read_file("/proc/meminfo", buf, sizeof(buf)) > 0 && (p = strstr(buf, "MemTotal:")))
		kb = strtoull(p + 9, NULL, 10);
	read_file("/sys/devices/system/clocksource/clocksource0/current_clocksource", clock, sizeof(clock));
	clock[strcspn(clock, "\n")] = 0;
	scx_read(&s);
	ev_begin(j, "hello");
	ev_u64(j, "version", PROTOCOL_VERSION);
	ev_str(j, "release", u.release);
	ev_i64(j, "cpus", online_cpus(cpus, 1024));
	if (read_file("/sys/devices/system/cpu/possible", buf, sizeof(buf)) <= 0)
		buf[0] = 0;
	ev_i64(j, "possible", parse_cpulist(buf, cpus, 1024));
	ev_u64(j, "memory_kb", kb);
	ev_str(j, "clocksource", clock);
	ev_str(j, "state", s.state);
	/* under virtual time QEMU's own, so that the host can find this moment again */
	ev_u64(j, "tsc", __builtin_ia32_rdtsc());
	/* the kernel's SCX_WATCHDOG_MAX_TIMEOUT, which is no enumerator and so cannot be asked for */
	ev_u64(j, "timeout_max_ms", 30000);
	topology_tell(j);
}

void told_job(void)
{
	struct json j;

	ev_begin(&j, "job");
	ev_i64(&j, "steps", job.nsteps);
	ev_send(&j);
}

/* Touches the stack that the monitor will use, so that no page fault comes later. */
static void __attribute__((noinline)) prefault_stack(void)
{
	volatile char page[64 << 10];

	for (size_t i = 0; i < sizeof(page); i += 4096)
		page[i] = 0;
}

static void *steps_thread(void *arg)
{
	(void)arg;
	set_fifo(0, PRIO_STEPS);
	job_run();
	return NULL;
}

static void finish(void)
{
	watchdog_disarm();
	if (is_init)
		init_poweroff();
	_exit(0);
}

static int run(void)
{
	char *text, why[256] = "";
	uint8_t *files;
	size_t len;
	pthread_attr_t attr;
	pthread_t steps;
	struct json j;

	is_init = getpid() == 1;
	if (is_init) {
		int fd;

		init_mounts();
		fd = open("/dev/console", O_RDWR);
		if (fd >= 0) {
			dup2(fd, 0);
			dup2(fd, 1);
			dup2(fd, 2);
			if (fd > 2)
				close(fd);
		}
		setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	} else {
		init_mounts();	/* only what is missing */
	}
	if (ports_open())
		die("no right to use the I/O ports");
	if (!debugcon_present())
		die("no isa-debugcon at 0x402");
	init_modules();
	if (shared_create())
		die("cannot make the shared memory");
	children_init();
	scx_init();
	trace_open();
	prefault_stack();
	pool_start();
	kbtf_load();	/* takes a second of a slow CPU, which a snapshot pays once */
	oracle_load();
	warm_start();
	kmsg_open();
	stream_open();

	text = fwcfg_read("opt/testbed/job", &len);
	if (!text || job_parse(text, &job, why, sizeof(why)))
		goto bad;
	world_vary(job.seed);
	files = fwcfg_read("opt/testbed/files", &len);
	mkdir("/job", 0755);
	if (files && len && cpio_unpack(files, len, "/job", why, sizeof(why)))
		goto bad;
	free(files);
	told_job();

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 1 << 20);
	monitor_start();
	oracle_start();
	if (mlockall(MCL_CURRENT | MCL_FUTURE))
		die("cannot lock memory");
	/* First the monitor's own priority: the steps must not run before somebody watches. */
	if (set_fifo(0, PRIO_MONITOR))
		die("no real-time priority");
	if (pthread_create(&steps, &attr, steps_thread, NULL))
		die("cannot make a thread");
	monitor_run();
	finish();
bad:
	ev_begin(&j, "log");
	ev_str(&j, "source", "runner");
	ev_u64(&j, "lost", 0);
	ev_str(&j, "text", why[0] ? why : "no job in fw_cfg");
	ev_send(&j);
	ev_begin(&j, "end");
	ev_bool(&j, "ok", false);
	ev_send(&j);
	finish();
	return 1;
}

int main(int argc, char **argv)
{
	static const struct { const char *word; int (*main)(int, char **); } modes[] = {
		{ "load", load_main }, { "exec", exec_main }, { "program", program_main }, { "probe", probe_main },
	};

	/* The modes are known by argv[0], which nobody types by accident. */
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		if (argc > 0 && !strcmp(argv[0], modes[i].word))
			return modes[i].main(argc, argv);
	if (argc > 1 && !strcmp(argv[1], "selftest"))
		return selftest_main();
	return run();
}
