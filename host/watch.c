// SPDX-License-Identifier: GPL-2.0-only
/*
 * The watcher: attaches one scheduler, looks at it ten times a second, and takes it back on the first limit that is crossed.
 * It asks nothing of an ordinary task while the scheduler runs: no file is written, no lock is shared, no call is waited for.
 */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host.h"

#define TICK (100 * NSEC_PER_MSEC)
#define LOAD_PATIENCE (60 * NSEC_PER_SEC)
#define ATTACH_PATIENCE (30 * NSEC_PER_SEC)
#define FRESH (3 * NSEC_PER_SEC)	/* a heartbeat is due every second */
#define BACK_PATIENCE (60 * NSEC_PER_SEC)	/* far beyond any `limits.detach`, so that the log can tell how it ended */
#define STORM_LINES 200		/* a second, of the kernel or of a program */
#define STORM_TRACE 20000	/* a second, of bpf_printk */
#define STORM_SECONDS 2

enum outcome { NOT_STARTED, ROLLED_BACK, STOPPED, NOT_BACK };

static struct law law;
static struct record record;
static struct bundle bundle;
static struct attach attach;
static bool partial, canary, restored;
static int stage;
static uint64_t seq_before, stage_end, last_beat;
static struct client_words words;
static volatile sig_atomic_t terminated;

static struct {
	const char *code;
	char message[1024];
	uint64_t at;
} limit;

/* what the host was like before, and in the last second */
static struct { double pressure; uint64_t available_kb, total_kb, kernel_kb; } before;
static struct {
	uint64_t next, wait, late, lines, program_lines, trace_lines;
	int storms;
	json *sample;
} second;

static void on_signal(int sig)
{
	(void)sig;
	terminated = 1;
}

static void cross(const char *code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void cross(const char *code, const char *fmt, ...)
{
	va_list ap;

	if (limit.code)
		return;
	limit.at = now_ns();
	limit.code = code;
	va_start(ap, fmt);
	vsnprintf(limit.message, sizeof(limit.message), fmt, ap);
	va_end(ap);
}

static json *event(const char *name)
{
	json *o = json_object_new_object();

	json_put_text(o, "event", name);
	return o;
}

/* Fields that every line of the log about a bundle has. */
static json *about(void)
{
	json *o = json_object_new_object();

	json_put_text(o, "id", record.id);
	json_put_text(o, "subject", record.subject);
	json_put_text(o, "case", record.case_id);
	return o;
}

static json *status(void)
{
	json *o = json_object_new_object();

	json_object_object_add(o, "live", second.sample ? json_object_get(second.sample) : json_object_new_object());
	return o;
}

static const char *stage_name(void)
{
	return canary ? law.stages[stage].name : "";
}

/* ---- looking ---- */

static double pressure(void)
{
	char text[256], *at;

	if (read_word(PROC_DIR "/pressure/cpu", text, sizeof(text)) <= 0)
		return -1;
	at = strstr(text, "some avg10=");
	return at ? strtod(at + strlen("some avg10="), NULL) : -1;
}

static uint64_t meminfo(const char *name)
{
	char text[4096], *at;

	if (read_word(PROC_DIR "/meminfo", text, sizeof(text)) <= 0)
		return 0;
	at = strstr(text, name);
	return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

/* What the kernel itself holds and can't give back, maps of BPF programs among it. */
static uint64_t kernel_memory(void)
{
	return meminfo("SUnreclaim:") + meminfo("Percpu:") + meminfo("VmallocUsed:");
}

/*
 * While it is a canary, minutes after the host was measured, whatever has changed is taken for its doing. What is kept runs for
 * days, in which the host's own work comes and goes: then load is no reason, and memory only if it is the kernel that has it.
 */
static void look_at_host(double p, uint64_t available)
{
	uint64_t tenth = before.total_kb / 10;

	if (canary && p > before.pressure + law.pressure)
		cross("pressure", "some task waits for a CPU %.1f %% of the time (before: %.1f %%), `limits.pressure` is %.1f %% more", p,
		      before.pressure, law.pressure);
	if (available && available < tenth && available + tenth < before.available_kb &&
	    (canary || kernel_memory() > before.kernel_kb + tenth))
		cross("memory", "%llu of %llu MiB are available, %llu were before", (unsigned long long)available >> 10,
		      (unsigned long long)before.total_kb >> 10, (unsigned long long)before.available_kb >> 10);
}

static void look_at_kernel(void)
{
	struct kernel_words *k;
	struct scx_state s;

	kmsg_drain();
	k = kmsg_words();
	scx_read(&s);
	if (!strcmp(s.state, "enabled") && s.enable_seq == record.enable_seq && !strcmp(s.ops, record.ops)) {
		if (k->alarm_code)
			cross(k->alarm_code, "the kernel says: %s", k->alarm);
		return;
	}
	if (!strcmp(s.state, "enabled") || s.enable_seq != record.enable_seq)
		cross("tampered", "`%s` is %s as number %llu, expected `%s` as number %llu", s.ops, s.state,
		      (unsigned long long)s.enable_seq, record.ops, (unsigned long long)record.enable_seq);
	else
		cross("left", "state is `%s`: %s%s%s", s.state, k->left ? k->reason : "it has left", k->message[0] ? ": " : "", k->message);
}

static void look_at_program(void)
{
	char text[400];

	if (!bundle.program)
		return;
	program_drain();
	if (!program_gone())
		return;
	program_end_text(text, sizeof(text));
	cross("left", "the program has ended: %s", text);
}

static void look_at_waits(void)
{
	int cpu;
	uint64_t wait = probes_wait(&cpu);

	if (wait > second.wait)
		second.wait = wait;
	if (wait > law.wait_ms * NSEC_PER_MSEC)
		cross("wait", "a task has waited for CPU %d for %llu ms, `limits.wait` is %llu ms", cpu, (unsigned long long)(wait / NSEC_PER_MSEC),
		      (unsigned long long)law.wait_ms);
}

static void look_at_storms(uint64_t kernel, uint64_t program, uint64_t trace)
{
	bool storm = kernel > STORM_LINES || program > STORM_LINES || trace > STORM_TRACE;

	second.storms = storm ? second.storms + 1 : 0;
	if (second.storms >= STORM_SECONDS)
		cross("log-storm", "%llu lines of the kernel, %llu of the program and %llu of bpf_printk in a second", (unsigned long long)kernel,
		      (unsigned long long)program, (unsigned long long)trace);
}

static void each_second(uint64_t now)
{
	double p = pressure();
	uint64_t available = meminfo("MemAvailable:"), lines = kmsg_words()->lines, said = program_lines(), trace = trace_lines();
	uint64_t kernel = lines - second.lines, program = said - second.program_lines;
	uint64_t traced = trace > second.trace_lines ? trace - second.trace_lines : 0;
	json *o = event("sample");

	look_at_host(p, available);
	look_at_storms(kernel, program, traced);
	json_put_text(o, "stage", stage_name());
	json_put_u64(o, "left_ms", canary && stage_end > now ? (stage_end - now) / NSEC_PER_MSEC : 0);
	json_put_real(o, "pressure", p);
	json_put_real(o, "pressure_before", before.pressure);
	json_put_u64(o, "wait_us", second.wait / 1000);
	json_put_u64(o, "late_us", second.late / 1000);
	json_put_u64(o, "log_lines", kernel + program);
	json_put_u64(o, "trace_lines", traced);
	json_put_u64(o, "available_kb", available);
	json_put_u64(o, "lifeline_ms", canary ? (now - last_beat) / NSEC_PER_MSEC : 0);
	evidence_sample(o);
	json_object_put(second.sample);
	second.sample = json_object_get(o);
	server_send(o, false);
	second.wait = second.late = 0;
	second.lines = lines;
	second.program_lines = said;
	second.trace_lines = trace;
	second.next = now + NSEC_PER_SEC;
}

static void look_at_clients(void)
{
	words.beats = 0;
	server_look(&words, status);
	if (words.beats)
		last_beat = now_ns();
}

static void look(void)
{
	const char *unhealthy;
	uint64_t now;
	int e;

	look_at_clients();
	now = now_ns();	/* after the last heartbeat */
	look_at_kernel();
	look_at_program();
	look_at_waits();
	unhealthy = health_look(now);
	if (unhealthy)
		cross("health", "%s", unhealthy);
	if (now >= second.next)
		each_second(now);
	if (canary && words.lost)
		cross("lifeline", "the promoter has let go");
	if (canary && now - last_beat > LIFELINE_NS)
		cross("lifeline", "nothing was heard of the promoter for %llu ms", (unsigned long long)((now - last_beat) / NSEC_PER_MSEC));
	e = scribe_failed();
	if (e && canary)
		cross("log", "the log can't be written: %s", strerror(e));
}

/* ---- attaching ---- */

/* A call of the other thread, while clients are listened to; -ETIMEDOUT: it has not returned. */
static int call(int (*fn)(void *), void *arg, uint64_t patience)
{
	uint64_t end = now_ns() + patience, next = 0;
	int result, e = hands_begin(fn, arg);

	if (e)
		return e;
	while (!hands_done(&result)) {
		uint64_t now = now_ns();

		if (now > end)
			return -ETIMEDOUT;
		if (now > next) {
			look_at_clients();
			next = now + TICK;
		}
		sleep_until(now + 2 * NSEC_PER_MSEC);
	}
	return result;
}

static bool confirm(uint64_t patience)
{
	uint64_t end = now_ns() + patience, next = 0;
	struct kernel_words *k = kmsg_words();
	struct scx_state s;
	bool all;

	attach.stage = "enable";
	for (;;) {
		uint64_t now = now_ns();
		bool over = now > end || (bundle.program && program_gone());

		scx_read(&s);
		kmsg_drain();
		if (s.enable_seq == seq_before + 1 && !strcmp(s.state, "enabled"))
			break;
		if (over || k->left || s.enable_seq > seq_before + 1) {
			/* the kernel says why it left before, or shortly after, the state says that it did */
			for (int i = 0; i < 100 && !k->left; i++, kmsg_drain())
				sleep_ms(2);
			if (s.enable_seq > seq_before + 1)
				snprintf(attach.detail, sizeof(attach.detail), "enabled more than once");
			else if (k->left)
				snprintf(attach.detail, sizeof(attach.detail), "%s%s%s", k->reason, k->message[0] ? ": " : "", k->message);
			else if (bundle.program)
				program_end_text(attach.detail, sizeof(attach.detail));
			else
				snprintf(attach.detail, sizeof(attach.detail), "state is `%s`, and the kernel does not say why", s.state);
			return false;
		}
		if (now > next) {
			look_at_clients();
			program_drain();
			next = now + TICK;
		}
		sleep_until(now + 2 * NSEC_PER_MSEC);
	}
	if (!bundle.program && strcmp(s.ops, attach.ops)) {
		snprintf(attach.detail, sizeof(attach.detail), "`%s` is enabled, expected `%s`", s.ops, attach.ops);
		return false;
	}
	all = scx_takes_all();
	if (all == partial) {
		snprintf(attach.detail, sizeof(attach.detail), "it takes %s, expected the opposite",
			 all ? "all tasks" : "only tasks that ask for it");
		return false;
	}
	copy_text(attach.ops, sizeof(attach.ops), s.ops);
	attach.enable_seq = s.enable_seq;
	return true;
}

static bool attach_now(void)
{
	uint64_t t0 = now_ns();
	struct scx_state s;
	json *o;
	int e;

	memset(&attach, 0, sizeof(attach));
	attach.bundle = &bundle;
	attach.partial = partial;
	attach.watchdog_ms = law.watchdog_ms;
	attach.stage = "open";
	kmsg_reset(false);
	scx_read(&s);
	seq_before = s.enable_seq;
	e = probes_start(partial);
	if (e) {
		snprintf(attach.detail, sizeof(attach.detail), "the probes can't be started: %s", strerror(-e));
	} else if (bundle.program) {
		e = program_start(&attach);
	} else {
		e = call(object_load, &attach, LOAD_PATIENCE);
		if (!e)
			e = call(object_attach, &attach, ATTACH_PATIENCE);
		if (e == -ETIMEDOUT)
			snprintf(attach.detail, sizeof(attach.detail), "the call has not returned in time");
	}
	if (e || !confirm(bundle.program ? ATTACH_PATIENCE : 2 * NSEC_PER_SEC)) {
		cross("not-attached", "%s: %s", attach.stage, attach.detail[0] ? attach.detail : strerror(-e));
		return false;
	}
	copy_text(record.ops, sizeof(record.ops), attach.ops);
	record.enable_seq = attach.enable_seq;
	record.since = wall_s();
	last_beat = now_ns();
	o = event("attached");
	json_put_text(o, "id", record.id);
	json_put_text(o, "ops", attach.ops);
	json_put_u64(o, "enable_seq", attach.enable_seq);
	json_put_u64(o, "timeout_ms", attach.timeout_ms);
	json_put_u64(o, "elapsed_ms", (now_ns() - t0) / NSEC_PER_MSEC);
	json_put_bool(o, "restored", restored);
	server_send(o, true);
	o = about();
	json_put_text(o, "ops", attach.ops);
	json_put_u64(o, "enable_seq", attach.enable_seq);
	scribe_audit("attached", o);
	return true;
}

/* ---- the way back ---- */

/* Whether what is enabled now is what we have enabled: nobody else's scheduler is ever taken back. */
static bool is_ours(const struct scx_state *s)
{
	return s->enable_seq <= seq_before + 1;
}

/*
 * From the limit on: the link is destroyed by the other thread (or the program told to end), while this one looks whether
 * sysfs says `disabled`; if not in half of the time, the kernel's own key is pressed.
 */
static bool take_back(uint64_t from, const char **how, uint64_t *us)
{
	uint64_t allowed = law.detach_ms * NSEC_PER_MSEC, half = from + allowed / 2, end = from + BACK_PATIENCE, pressed = 0;
	struct scx_state s;
	bool back, killed = false;

	scx_read(&s);
	back = !strcmp(s.state, "disabled");
	*how = back ? "left" : bundle.program ? "program" : "link";
	health_stop();
	if (bundle.program)
		program_signal(SIGTERM);
	else
		hands_begin(object_detach, NULL);	/* if an earlier call has not returned, the key is all there is */
	for (;;) {
		uint64_t now = now_ns();

		scx_read(&s);
		back = !strcmp(s.state, "disabled");
		if (back || now > end || !is_ours(&s)) {
			*us = (now - from) / 1000;
			break;
		}
		if (bundle.program && !killed && now > from + allowed / 4) {
			killed = true;
			program_kill_all();
		}
		if (now > half && (!pressed || now > pressed + 5 * NSEC_PER_SEC)) {
			pressed = now;
			*how = "sysrq";
			scx_sysrq();
		}
		sleep_until(now + NSEC_PER_MSEC);
	}
	if (bundle.program) {
		program_kill_all();
		program_forget();
	} else {
		uint64_t patience = now_ns() + 2 * NSEC_PER_SEC;
		int result;

		while (!hands_done(&result) && now_ns() < patience)
			sleep_ms(1);
		call(object_close, NULL, 2 * NSEC_PER_SEC);
	}
	if (back)
		probes_stop();
	for (int i = 0; i < 100 && back && !kmsg_words()->left; i++) {
		sleep_ms(2);
		kmsg_drain();
	}
	return back;
}

static void write_record(const char *phase)
{
	copy_text(record.phase, sizeof(record.phase), phase);
	copy_text(record.stage, sizeof(record.stage), stage_name());
	scribe_record(CURRENT_FILE, &record);
}

static json *way_back(json *o, bool back, uint64_t us, const char *how)
{
	struct kernel_words *k = kmsg_words();
	char reason[1400];

	snprintf(reason, sizeof(reason), "%s%s%s", k->reason, k->message[0] ? ": " : "", k->message);
	json_put_text(o, "reason", reason);
	json_put_bool(o, "back", back);
	json_put_u64(o, "back_us", us);
	json_put_bool(o, "in_time", back && us <= law.detach_ms * 1000);
	json_put_text(o, "how", how);
	return o;
}

static enum outcome roll_back(void)
{
	const char *how;
	char print[HEX], place[600], first[64];
	json *o = event("limit"), *log;
	uint64_t us;
	bool back;
	int e;

	/* said before anything is written: whoever follows knows at once */
	copy_text(first, sizeof(first), limit.code);
	json_put_text(o, "limit", limit.code);
	json_put_text(o, "message", limit.message);
	json_put_text(o, "stage", stage_name());
	server_send(o, true);
	back = take_back(limit.at, &how, &us);
	reserve_give();
	scribe_flush(5000);
	fingerprint(first, record.ops[0] ? record.ops : attach.ops, record.subject, print);
	o = event("rollback");
	json_put_text(o, "limit", first);
	json_put_text(o, "message", limit.message);
	json_put_text(o, "stage", stage_name());
	way_back(o, back, us, how);
	json_put_text(o, "fingerprint", print);
	e = evidence_write(&record, o, place, sizeof(place));
	json_put_text(o, "evidence", e ? "" : place);
	json_put_text(o, "restores", back && !restored && strcmp(record.previous, record.id) ? record.previous : "");
	copy_text(record.limit, sizeof(record.limit), first);
	copy_text(record.kernel_end, sizeof(record.kernel_end), limit.message);
	log = about();
	json_object_object_foreach(o, key, value)
		if (strcmp(key, "event"))
			json_object_object_add(log, key, json_object_get(value));
	e = audit(back ? "rolled-back" : "not-back", log);
	json_put_bool(o, "logged", !e);
	copy_text(record.stage, sizeof(record.stage), stage_name());
	copy_text(record.phase, sizeof(record.phase), "rolled-back");
	record_write(CURRENT_FILE, &record);
	server_send(o, true);
	return back ? ROLLED_BACK : NOT_BACK;
}

static enum outcome stop(void)
{
	uint64_t t0 = now_ns(), us;
	bool by_hand = words.stop, back;
	json *o, *log;
	const char *how;

	back = take_back(t0, &how, &us);
	reserve_give();
	scribe_flush(5000);
	o = json_object_new_object();
	json_put_bool(o, "stopped", back);
	json_put_text(o, "id", record.id);
	way_back(o, back, us, how);
	log = about();
	json_put_text(log, "why", by_hand ? "asked" : "signal");
	way_back(log, back, us, how);
	audit(back ? "stopped" : "not-back", log);
	/* Whoever shuts the machine down wants to find what was kept again, where the policy says so. */
	if (by_hand || canary)
		copy_text(record.phase, sizeof(record.phase), back ? "stopped" : "rolled-back");
	record_write(CURRENT_FILE, &record);
	server_answer_stop(o);
	return back ? STOPPED : NOT_BACK;
}

/* ---- the stages ---- */

static void enter_stage(void)
{
	struct stage *s = &law.stages[stage];
	json *o = event("stage"), *log = about();

	stage_end = now_ns() + s->duration_ms * NSEC_PER_MSEC;
	json_put_text(o, "stage", s->name);
	json_put_text(o, "scope", s->partial ? "partial" : "all");
	json_put_i64(o, "number", stage + 1);
	json_put_i64(o, "of", law.nstages);
	json_put_u64(o, "duration_ms", s->duration_ms);
	server_send(o, true);
	json_put_text(log, "stage", s->name);
	scribe_audit("stage", log);
	write_record("canary");
}

/* The scope is fixed when a scheduler is loaded, so another one means: back to EEVDF, and once more. */
static bool change_scope(bool to)
{
	const char *how;
	uint64_t us;

	if (to == partial)
		return true;
	if (!take_back(now_ns(), &how, &us)) {
		cross("not-back", "between two stages EEVDF was not back in time");
		return false;
	}
	partial = to;
	return attach_now();
}

static void keep(void)
{
	json *o = event("kept");

	canary = false;
	json_put_text(o, "id", record.id);
	json_put_text(o, "ops", record.ops);
	server_send(o, true);
	scribe_audit("kept", about());
	write_record("kept");
	scribe_record(LAST_GOOD_FILE, &record);
}

static void baseline(void)
{
	struct kernel_words *k = kmsg_words();

	memset(&before, 0, sizeof(before));
	before.pressure = pressure();
	before.available_kb = meminfo("MemAvailable:");
	before.total_kb = meminfo("MemTotal:");
	before.kernel_kb = kernel_memory();
	json_object_put(second.sample);
	memset(&second, 0, sizeof(second));
	second.lines = k->lines;
	second.trace_lines = trace_lines();
	second.next = now_ns() + NSEC_PER_SEC;
}

/* NULL, or why nothing is started at all. */
static const char *unfit(void)
{
	static char text[1200];
	struct told told = { .begun = true };
	uint64_t end;
	const char *sick;
	json *refusals, *first;
	int e = bundle_open(record.id, &bundle);

	if (e) {
		snprintf(text, sizeof(text), "%s: the bundle is %s", e == -ENOENT ? "not-staged" : "damaged-bundle",
			 e == -ENOENT ? "not here" : "damaged");
		return text;
	}
	copy_text(record.subject, sizeof(record.subject), bundle.subject);
	refusals = verify(&bundle, &law, &told);
	copy_text(record.case_id, sizeof(record.case_id), told.case_id);
	check_kernel_now(refusals, NULL);
	first = json_object_array_get_idx(refusals, 0);
	if (first)
		snprintf(text, sizeof(text), "%s: %.1000s", json_text(first, "code"), json_text(first, "message"));
	json_object_put(refusals);
	if (first)
		return text;
	if (kmsg_fd() < 0)
		return "kernel-log: /dev/kmsg can't be read, so nobody would see what the kernel says";
	sick = health_init();
	end = now_ns() + 7 * NSEC_PER_SEC;
	/* once before, so that a sick host is not taken for a bad scheduler */
	if (!sick)
		sick = health_look(now_ns());
	while (!sick && !health_idle() && now_ns() < end) {
		sleep_ms(10);
		sick = health_look(now_ns());
	}
	if (sick) {
		health_stop();
		snprintf(text, sizeof(text), "health: %s, before anything was attached", sick);
		return text;
	}
	return NULL;
}

static enum outcome not_started(const char *why)
{
	json *o = event("rollback"), *log = about();

	copy_text(record.limit, sizeof(record.limit), "not-started");
	copy_text(record.kernel_end, sizeof(record.kernel_end), why);
	copy_text(record.phase, sizeof(record.phase), "stopped");
	json_put_text(log, "message", why);
	audit(restored ? "not-restored" : canary ? "not-started" : "not-resumed", log);
	record_write(CURRENT_FILE, &record);
	json_put_text(o, "limit", "not-started");
	json_put_text(o, "message", why);
	json_put_bool(o, "back", true);
	server_send(o, true);
	reserve_give();
	return NOT_STARTED;
}

/* One scheduler from its first check to its end. */
static enum outcome run(bool with_stages, bool again)
{
	uint64_t next;
	const char *why;

	canary = with_stages;
	restored = again;
	stage = 0;
	partial = law.stages[with_stages ? 0 : law.nstages - 1].partial;
	memset(&limit, 0, sizeof(limit));
	memset(&words, 0, sizeof(words));
	record.ops[0] = record.stage[0] = record.limit[0] = record.kernel_end[0] = 0;
	record.enable_seq = 0;
	boot_id(record.boot);
	evidence_reset();
	kmsg_reset(true);
	why = unfit();
	if (why)
		return not_started(why);
	baseline();
	if (!attach_now())
		return roll_back();
	if (canary) {
		enter_stage();
	} else {
		scribe_audit(restored ? "restored" : "resumed", about());
		write_record("kept");
	}
	next = now_ns() + TICK;
	while (!limit.code) {
		uint64_t now;

		sleep_until(next);
		now = now_ns();
		if (now - next > second.late)
			second.late = now - next;
		if (now - next > law.wait_ms * NSEC_PER_MSEC)
			cross("late", "the watcher itself had to wait %llu ms", (unsigned long long)((now - next) / NSEC_PER_MSEC));
		next = now - next > TICK ? now + TICK : next + TICK;
		look();
		if (!limit.code && (words.stop || terminated))
			return stop();
		/* The end of a stage needs the promoter's word too: one that is gone is noticed before anything is kept. */
		if (limit.code || !canary || now < stage_end || now_ns() - last_beat > FRESH)
			continue;
		if (stage + 1 == law.nstages) {
			keep();
		} else {
			stage++;
			if (change_scope(law.stages[stage].partial))
				enter_stage();
			next = now_ns() + TICK;
		}
	}
	return roll_back();
}

static void done(const char *outcome)
{
	json *o = event("done");

	json_put_text(o, "outcome", outcome);
	server_send(o, true);
}

static int finish(enum outcome o)
{
	static const char *const names[] = { "not-started", "rolled-back", "stopped", "not-back" };

	done(names[o]);
	scribe_flush(5000);
	server_close();
	return o == STOPPED ? EXIT_FINE : o == NOT_BACK ? EXIT_HOST : EXIT_REFUSED;
}

int watch(void)
{
	char holder[256] = "", words_of_mine[64], boot[40], previous[HEX];
	struct sigaction act = { .sa_handler = on_signal };
	bool resumes;
	enum outcome o;
	int e;

	snprintf(words_of_mine, sizeof(words_of_mine), "pid %d\n", (int)getpid());
	e = lock_take(WATCHER_FILE, words_of_mine, holder, sizeof(holder));
	if (e < 0)
		fail(e == -EWOULDBLOCK ? EXIT_REFUSED : EXIT_HOST, "busy", "testbed-host stop", "another watcher is at work: %s", holder);
	e = record_read(CURRENT_FILE, &record);
	if (e == -ENOENT)
		return EXIT_FINE;	/* nothing was ever promoted, and at boot that is no fault */
	if (e)
		fail(EXIT_HOST, "io", "look at " CURRENT_FILE, "the record can't be read: %s", strerror(-e));
	boot_id(boot);
	resumes = strcmp(record.boot, boot) != 0;
	if (strcmp(record.phase, "starting") && strcmp(record.phase, "canary") && strcmp(record.phase, "kept"))
		return EXIT_FINE;
	law_load(&law);
	if (!resumes && strcmp(record.phase, "starting"))
		fail(EXIT_REFUSED, "not-running", "testbed-host stop, then start it again",
		     "the record says `%s`, and no watcher goes on with what another one has begun", record.phase);
	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGINT, &act, NULL);
	signal(SIGPIPE, SIG_IGN);
	kmsg_open();
	spawn_init();
	e = server_open();
	if (e)
		fail(EXIT_HOST, "io", "look at " RUN_DIR, "can't listen at " SOCKET_FILE ": %s", strerror(-e));
	if (resumes && (strcmp(record.phase, "kept") || !law.persist)) {
		json *log = about();

		json_put_text(log, "phase", record.phase);
		json_put_text(log, "message", law.persist ? "it was not kept when the machine went down" : "the policy does not say `persist`");
		audit("lost", log);
		copy_text(record.phase, sizeof(record.phase), "stopped");
		copy_text(record.limit, sizeof(record.limit), "rebooted");
		record_write(CURRENT_FILE, &record);
		server_close();
		return EXIT_FINE;
	}
	mallopt(M_ARENA_MAX, 1);	/* each arena would be 64 MiB of locked address space */
	/* All memory there is and will be, then real time: from here on nothing ordinary is needed. */
	if (mlockall(MCL_CURRENT | MCL_FUTURE) || set_fifo(PRIORITY) || hands_start() || scribe_start())
		fail(EXIT_HOST, "unit-failed", "the unit needs CAP_IPC_LOCK and CAP_SYS_NICE", "can't become a real-time task: %s", strerror(errno));
	copy_text(previous, sizeof(previous), record.previous);
	o = run(!resumes, false);
	if ((o == ROLLED_BACK || o == NOT_STARTED) && !resumes && previous[0] && strcmp(previous, record.id)) {
		struct record last = record;

		bundle_close(&bundle);
		copy_text(record.id, sizeof(record.id), previous);
		record.subject[0] = record.case_id[0] = record.previous[0] = 0;
		done("rolled-back");
		o = run(false, true);
		if (o == NOT_STARTED)
			record_write(CURRENT_FILE, &last);	/* EEVDF it is, and why stands in the log */
	}
	return finish(o);
}
