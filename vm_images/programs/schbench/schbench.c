// SPDX-License-Identifier: GPL-2.0-only
/* Options, the course of a run, and what it says at the end. */
#include "schbench.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

struct options options = {
	.message_threads = 1,
	.operations = 5,
	.footprint_kb = 32,
	.think_us = 100,
	.runtime_ns = 30 * NSEC_PER_SEC,
	.interval_ns = 10 * NSEC_PER_SEC,
	.locking = true,
};

static const double latency_percents[] = { 20, 50, 90, 99, 99.9 };
static const double rps_percents[] = { 20, 50, 90 };

#define LENGTH(array)	(sizeof(array) / sizeof((array)[0]))

static const struct option long_options[] = {
	{ "auto-rps", required_argument, NULL, 'A' },
	{ "calibrate", no_argument, NULL, 'C' },
	{ "cache_footprint", required_argument, NULL, 'F' },
	{ "help", no_argument, NULL, 'h' },
	{ "intervaltime", required_argument, NULL, 'i' },
	{ "json", required_argument, NULL, 'j' },
	{ "jobname", required_argument, NULL, 'J' },
	{ "no-locking", no_argument, NULL, 'L' },
	{ "message-threads", required_argument, NULL, 'm' },
	{ "message-cpus", required_argument, NULL, 'M' },
	{ "operations", required_argument, NULL, 'n' },
	{ "pipe", required_argument, NULL, 'p' },
	{ "runtime", required_argument, NULL, 'r' },
	{ "rps", required_argument, NULL, 'R' },
	{ "sleep_usec", required_argument, NULL, 's' },
	{ "threads", required_argument, NULL, 't' },
	{ "warmuptime", required_argument, NULL, 'w' },
	{ "worker-cpus", required_argument, NULL, 'W' },
	{ "zerotime", required_argument, NULL, 'z' },
	{ NULL, 0, NULL, 0 },
};

static void usage(void)
{
	fprintf(stderr,
		"usage: schbench [options]\n"
		"  -C, --calibrate           time one request, alone\n"
		"  -L, --no-locking          no per-CPU lock around the work\n"
		"  -m, --message-threads N   message threads (1)\n"
		"  -t, --threads N           workers of each (number of CPUs)\n"
		"  -M, --message-cpus LIST   pin message threads: 0-1,3 or auto\n"
		"  -W, --worker-cpus LIST    pin workers: 2-3 or auto\n"
		"  -r, --runtime S           seconds, may be fractions, like all times in seconds (30)\n"
		"  -F, --cache_footprint KB  matrices of one worker (32)\n"
		"  -n, --operations N        multiplications in one request (5)\n"
		"  -s, --sleep_usec US       think time of each request (100)\n"
		"  -A, --auto-rps PERCENT    find the rate that makes the CPUs this busy\n"
		"  -R, --rps N               requests per second, together\n"
		"  -p, --pipe BYTES          hand over BYTES instead of work\n"
		"  -w, --warmuptime S        forget what came before (0)\n"
		"  -i, --intervaltime S      report every S (10)\n"
		"  -z, --zerotime S          begin the statistics anew every S (never)\n"
		"  -j, --json FILE|-         also write JSON\n"
		"  -J, --jobname NAME        goes to the JSON\n");
	exit(1);
}

static double number(const char *text, double least)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value >= least) || value > 1e9) {
		fprintf(stderr, "schbench: expected a number of at least %g, found `%s`\n", least, text);
		exit(1);
	}
	return value;
}

static int64_t seconds(const char *text)
{
	return number(text, 0) * NSEC_PER_SEC;
}

static void cpu_list(const char *text, cpu_set_t *set)
{
	CPU_ZERO(set);
	for (const char *c = text; *c;) {
		char *end;
		long first = strtol(c, &end, 10), last = first;

		if (end != c && *end == '-')
			last = strtol(c = end + 1, &end, 10);
		if (end == c || (*end && *end != ',') || first < 0 || last < first ||
		    last >= CPU_SETSIZE) {
			fprintf(stderr, "schbench: expected a CPU list, found `%s`\n", text);
			exit(1);
		}
		for (long cpu = first; cpu <= last; cpu++)
			CPU_SET(cpu, set);
		c = *end ? end + 1 : end;
	}
}

/* `auto`: the first CPUs for the message threads, one for each, the others for workers. */
static void pin(const char *text, bool workers, cpu_set_t *set)
{
	cpu_set_t allowed;
	int seen = 0;

	if (strcmp(text, "auto")) {
		cpu_list(text, set);
		return;
	}
	CPU_ZERO(set);
	sched_getaffinity(0, sizeof(allowed), &allowed);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && (seen++ >= options.message_threads) == workers)
			CPU_SET(cpu, set);
	if (CPU_COUNT(set) == 0)
		*set = allowed;
}

static void parse(int argc, char **argv)
{
	const char *message_cpus = NULL, *worker_cpus = NULL;
	size_t used = 0;
	int option;

	for (int i = 0; i < argc && used < sizeof(options.command_line); i++)
		used += snprintf(options.command_line + used, sizeof(options.command_line) - used,
				 "%s%s", i ? " " : "", i ? argv[i] : "schbench");

	while ((option = getopt_long(argc, argv, "A:CF:i:j:J:Lm:M:n:p:r:R:s:t:w:W:z:",
				     long_options, NULL)) >= 0) {
		switch (option) {
		case 'A': options.auto_rps = number(optarg, 1); break;
		case 'C': options.calibrate = true; break;
		case 'F': options.footprint_kb = number(optarg, 1); break;
		case 'i': options.interval_ns = seconds(optarg); break;
		case 'j': options.json = optarg; break;
		case 'J': options.job_name = optarg; break;
		case 'L': options.locking = false; break;
		case 'm': options.message_threads = number(optarg, 1); break;
		case 'M': message_cpus = optarg; break;
		case 'n': options.operations = number(optarg, 0); break;
		case 'p': options.pipe_bytes = number(optarg, 1); break;
		case 'r': options.runtime_ns = seconds(optarg); break;
		case 'R': options.rps = number(optarg, 0); break;
		case 's': options.think_us = number(optarg, 0); break;
		case 't': options.workers = number(optarg, 1); break;
		case 'w': options.warmup_ns = seconds(optarg); break;
		case 'W': worker_cpus = optarg; break;
		case 'z': options.zero_ns = seconds(optarg); break;
		default: usage();
		}
	}
	if (optind < argc) {
		fprintf(stderr, "schbench: unexpected `%s`\n", argv[optind]);
		usage();
	}
	if (!options.workers)
		options.workers = sysconf(_SC_NPROCESSORS_ONLN);
	if (options.auto_rps && !options.rps)
		options.rps = 10 * options.message_threads;
	if (options.pipe_bytes)
		options.rps = options.auto_rps = 0;
	options.pin_message = message_cpus;
	options.pin_workers = worker_cpus;
	if (message_cpus)
		pin(message_cpus, false, &options.message_cpus);
	if (worker_cpus)
		pin(worker_cpus, true, &options.worker_cpus);
}

/* Share of all CPU time since the last call that was not idle. */
static double busy_share(void)
{
	static unsigned long long last_total, last_idle;
	unsigned long long v[8] = { 0 }, total = 0, idle;
	double share = 0;
	FILE *file = fopen("/proc/stat", "re");

	if (!file)
		return 0;
	if (fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3],
		   &v[4], &v[5], &v[6], &v[7]) < 4)
		v[3] = 0;
	fclose(file);
	for (size_t i = 0; i < LENGTH(v); i++)
		total += v[i];
	idle = v[3] + v[4];
	if (total > last_total)
		share = 1 - (double)(idle - last_idle) / (total - last_total);
	last_total = total;
	last_idle = idle;
	return share;
}

/* True when the CPUs are as busy as they should be. */
static bool adjust_rate(void)
{
	double target = options.auto_rps / 100.0, busy = busy_share();
	double factor = busy > 0 ? target / busy : 2;
	double least = 10 * options.message_threads;

	if (factor > 0.97 && factor < 1.03)
		return true;
	if (factor > 2)
		factor = 2;
	if (factor < 0.5)
		factor = 0.5;
	factor = 1 + (factor - 1) * 0.7;
	model_set_rps(options.rps * factor > least ? options.rps * factor : least);
	return false;
}

static void print_table(const char *title, const char *unit, const struct histogram *h,
			const double *percents, size_t count, double starred, double scale,
			double runtime)
{
	uint64_t before = 0;

	fprintf(stderr, "%s percentiles (%s) runtime %g (s) (%llu total samples)\n", title, unit,
		runtime, (unsigned long long)h->samples);
	for (size_t i = 0; i < count; i++) {
		uint64_t below, value = histogram_percentile(h, percents[i], &below);

		fprintf(stderr, "\t%s %.1fth: %-10.0f (%llu samples)\n",
			percents[i] == starred ? "*" : " ", percents[i], value / scale,
			(unsigned long long)(below - before));
		before = below;
	}
	fprintf(stderr, "\t  min=%.0f, max=%.0f\n", h->min / scale, h->max / scale);
}

/* Nanoseconds, but rates in thousandths, so that both keep their decimals. */
#define RATE_SCALE	1000.0

static void print_text(const struct totals *totals, const struct histogram *rates, double runtime,
		       double rate, bool last)
{
	const double *percents = latency_percents + 1;
	size_t count = LENGTH(latency_percents) - 1;

	if (options.pipe_bytes) {
		print_table("Wakeup Latencies", "usec", &totals->wakeup, latency_percents,
			    LENGTH(latency_percents), 99, NSEC_PER_USEC, runtime);
		fprintf(stderr, "avg worker transfer: %.2f ops/sec %.2fMB/s\n", rate,
			rate * options.pipe_bytes / (1024 * 1024));
		return;
	}
	print_table("Wakeup Latencies", "usec", &totals->wakeup, percents, count, 99,
		    NSEC_PER_USEC, runtime);
	print_table("Request Latencies", "usec", &totals->request, percents, count, 99,
		    NSEC_PER_USEC, runtime);
	print_table("RPS", "requests", rates, rps_percents, LENGTH(rps_percents), 50, RATE_SCALE,
		    runtime);
	fprintf(stderr, "sched delay: message %lld (usec) worker %lld (usec)\n",
		(long long)(totals->message_delay_ns / NSEC_PER_USEC),
		(long long)(totals->worker_delay_ns / NSEC_PER_USEC));
	if (!last)
		fprintf(stderr, "current rps: %.2f\n", rate);
	else if (options.auto_rps)
		fprintf(stderr, "final rps goal was %.0f\n", options.rps);
	else
		fprintf(stderr, "average rps: %.2f\n", rate);
}

static void json_string(FILE *out, const char *key, const char *text)
{
	fprintf(out, "\"%s\": \"", key);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			fprintf(out, "\\%c", *text);
		else if ((unsigned char)*text < 0x20)
			fprintf(out, "\\u%04x", (unsigned char)*text);
		else
			fputc(*text, out);
	}
	fputs("\", ", out);
}

static void json_histogram(FILE *out, const char *name, const struct histogram *h,
			   const double *percents, size_t count, double scale)
{
	for (size_t i = 0; i < count; i++)
		fprintf(out, "\"%s_pct%.1f\": %.3f, ", name, percents[i],
			histogram_percentile(h, percents[i], NULL) / scale);
	fprintf(out, "\"%s_min\": %.3f, \"%s_max\": %.3f, \"%s_samples\": %llu, ", name,
		h->min / scale, name, h->max / scale, name, (unsigned long long)h->samples);
}

static void first_word(const char *path, char *text, size_t size)
{
	FILE *file = fopen(path, "re");

	text[0] = 0;
	if (file && fgets(text, size, file))
		text[strcspn(text, "\n")] = 0;
	if (file)
		fclose(file);
}

static void write_json(FILE *out, const struct totals *totals, const struct histogram *rates,
		       double runtime, double rate)
{
	char state[64], ops[128], both[200];
	struct utsname name;

	uname(&name);
	first_word("/sys/kernel/sched_ext/state", state, sizeof(state));
	first_word("/sys/kernel/sched_ext/root/ops", ops, sizeof(ops));
	snprintf(both, sizeof(both), "%s%s%s", state[0] ? state : "unavailable",
		 ops[0] ? " " : "", ops);

	fputs("{\"normal\": {", out);
	json_string(out, "version", name.release);
	json_string(out, "implementation", "testbed");
	if (options.job_name)
		json_string(out, "jobname", options.job_name);
	json_string(out, "hostname", name.nodename);
	json_string(out, "sched_ext", both);
	json_string(out, "cmdline", options.command_line);
	fprintf(out, "\"message_threads\": %d, \"threads\": %d, \"cache_footprint_kb\": %d, "
		"\"operations\": %d, \"sleep_usec\": %d}, \"int\": {", options.message_threads,
		options.workers, options.footprint_kb, options.operations, options.think_us);
	json_histogram(out, "wakeup_latency", &totals->wakeup, latency_percents,
		       LENGTH(latency_percents), NSEC_PER_USEC);
	if (options.pipe_bytes) {
		fprintf(out, "\"transfer_ops_per_sec\": %.2f, ", rate);
	} else {
		json_histogram(out, "request_latency", &totals->request, latency_percents,
			       LENGTH(latency_percents), NSEC_PER_USEC);
		json_histogram(out, "rps", rates, rps_percents, LENGTH(rps_percents), RATE_SCALE);
		fprintf(out, "\"average_rps\": %.2f, \"rps_goal\": %.2f, \"requests_dropped\": %llu, ",
			rate, options.rps, (unsigned long long)totals->dropped);
	}
	fprintf(out, "\"sched_delay_message\": %.3f, \"sched_delay_worker\": %.3f, ",
		totals->message_delay_ns / 1000.0, totals->worker_delay_ns / 1000.0);
	fprintf(out, "\"time\": %.3f, \"runtime\": %.3f}}\n", now_ns() / 1e9, runtime);
}

static void report(const struct totals *totals, const struct histogram *rates, double runtime,
		   uint64_t requests)
{
	double rate = runtime > 0 ? requests / runtime : 0;
	FILE *out;

	print_text(totals, rates, runtime, rate, true);
	if (!options.json)
		return;
	out = strcmp(options.json, "-") ? fopen(options.json, "we") : stdout;
	if (out)
		write_json(out, totals, rates, runtime, rate);
	if (!out || fflush(out)) {
		fprintf(stderr, "schbench: can't write `%s`: %m\n", options.json);
		exit(1);
	}
}

static void run(void)
{
	static struct histogram rates;
	static struct totals totals;
	int64_t step = options.runtime_ns / 10 < NSEC_PER_SEC ? options.runtime_ns / 10 : NSEC_PER_SEC;
	int64_t began_at, measured_from, now, next_report, next_zero, end;
	uint64_t measured_requests = 0, last_requests = 0;
	int64_t last_at;
	bool warm = false, settled = !options.auto_rps;

	if (step < NSEC_PER_SEC / 100)
		step = NSEC_PER_SEC / 100;
	began_at = measured_from = last_at = now_ns();
	end = began_at + options.warmup_ns + options.runtime_ns;
	next_report = began_at + options.interval_ns;
	next_zero = began_at + options.zero_ns;
	busy_share();
	model_start();
	for (now = began_at; now < end;) {
		int64_t until = now + step < end ? now + step : end;
		bool clear = false;
		uint64_t requests;

		sleep_until(until);
		now = now_ns();
		requests = model_requests();
		histogram_add(&rates, (requests - last_requests) * RATE_SCALE * NSEC_PER_SEC /
				      (now - last_at));
		last_requests = requests;
		last_at = now;
		if (options.auto_rps && adjust_rate() && !settled)
			settled = clear = true;
		if (!warm && options.warmup_ns && now >= began_at + options.warmup_ns)
			warm = clear = true;
		if (options.zero_ns && now >= next_zero) {
			next_zero += options.zero_ns;
			clear = now < end;
		}
		if (options.interval_ns && now >= next_report && now < end) {
			next_report += options.interval_ns;
			model_totals(&totals);
			print_text(&totals, &rates, (now - measured_from) / 1e9,
				   (requests - measured_requests) * 1e9 / (now - measured_from), false);
		}
		if (clear) {
			model_clear();
			histogram_clear(&rates);
			measured_from = now;
			measured_requests = requests;
		}
	}
	model_totals(&totals);
	model_stop();
	report(&totals, &rates, (now - measured_from) / 1e9, totals.requests - measured_requests);
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	if (options.runtime_ns <= 0) {
		fprintf(stderr, "schbench: the runtime must be more than nothing\n");
		return 1;
	}
	if (options.calibrate) {
		fprintf(stderr, "calibrate: %.1f usec for a request\n",
			model_calibrate(options.runtime_ns));
		return 0;
	}
	run();
	/* Detached threads that are still starved end with the process. */
	exit(0);
}
