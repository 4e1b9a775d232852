// SPDX-License-Identifier: GPL-2.0-only
/*
 * sched_ext's state in sysfs, attaching and detaching whatever the candidate is, and telling why a scheduler left.
 * That the attach call succeeds proves nothing (the kernel reports errors of enabling through ops.exit and returns 0),
 * so only sysfs counts: state enabled, an enable_seq that is one more, and the right name.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "runner.h"

#define SCX "/sys/kernel/sched_ext/"
#define EXIT_PATIENCE (3 * NSEC_PER_SEC)	/* for a scheduler that is stuck in `disabling` */

static struct {
	pthread_mutex_t lock;
	bool ours;	/* attached, confirmed, and not yet seen to have left */
	bool wanted;	/* an attach was tried and no detach since */
	bool leaving;	/* we asked it to leave */
	bool exit_sent;
	char ops[128];
	uint64_t seq, left_at;
} now_attached;

void scx_init(void)
{
	mutex_init_pi(&now_attached.lock);
	now_attached.seq = read_u64(SCX "enable_seq", 0);
}

static void read_word(const char *path, char *to, size_t n)
{
	if (read_file(path, to, n) < 0)
		to[0] = 0;
	to[strcspn(to, "\n")] = 0;
}

void scx_read(struct scx_state *s)
{
	read_word(SCX "state", s->state, sizeof(s->state));
	read_word(SCX "root/ops", s->ops, sizeof(s->ops));
	s->enable_seq = read_u64(SCX "enable_seq", 0);
	s->rejected = read_u64(SCX "nr_rejected", 0);
}

bool scx_is_ours(void)
{
	return now_attached.ours;
}

bool scx_has_left(void)
{
	return now_attached.left_at && !now_attached.leaving;
}

bool scx_is_gone(void)
{
	return now_attached.wanted && !now_attached.ours;
}

static const char *reason_kind(const char *reason)
{
	static const struct { const char *reason, *name; } table[] = {
		{ "unregistered from user space", "SCX_EXIT_UNREG" },
		{ "unregistered from BPF", "SCX_EXIT_UNREG_BPF" },
		{ "unregistered from the main kernel", "SCX_EXIT_UNREG_KERN" },
		{ "disabled by sysrq-S", "SCX_EXIT_SYSRQ" },
		{ "parent exiting", "SCX_EXIT_PARENT" },
		{ "killed by parent scheduler", "SCX_EXIT_PARENT_KILL" },
		{ "runtime error", "SCX_EXIT_ERROR" },
		{ "scx_bpf_error", "SCX_EXIT_ERROR_BPF" },
		{ "runnable task stall", "SCX_EXIT_ERROR_STALL" },
		{ "reenqueue limit", "SCX_EXIT_ERROR_REENQ" },
		{ "rescue bandwidth overload", "SCX_EXIT_ERROR_RESCUE" },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (!strcmp(table[i].reason, reason))
			return table[i].name;
	return NULL;
}

/* A candidate's own record is preferred (it has the code), but it is also what a candidate can lie in: the kernel's word wins. */
static void send_exit(bool by_us)
{
	struct kernel_exit k;
	struct uei_copy u;
	bool uei = object_uei(&u) && u.kind;
	const char *source = uei ? "uei" : "kernel", *name;
	uint32_t kind = 0;
	struct json j;

	kernel_exit_get(&k);
	name = k.seen ? reason_kind(k.reason) : NULL;
	if (name && kbtf_exit_kind_value(name, &kind))
		;
	else if (k.kind_seen)
		kind = k.kind;
	else if (uei)
		kind = u.kind;
	if (uei && kind != u.kind) {
		uei = false;
		source = "kernel";
	}
	ev_begin(&j, "exit");
	ev_u64(&j, "kind", kind);
	ev_str(&j, "name", kbtf_exit_kind(kind));
	ev_i64(&j, "code", uei ? u.code : 0);
	ev_str(&j, "reason", k.seen ? k.reason : uei ? u.reason : "");
	ev_str(&j, "message", k.message[0] ? k.message : uei ? u.message : "");
	ev_bool(&j, "by_us", by_us);
	ev_str(&j, "source", source);
	ev_str(&j, "ops", now_attached.ops);
	ev_send(&j);
}

void scx_watch(void)
{
	struct scx_state s;
	uint64_t now = now_ns();

	pthread_mutex_lock(&now_attached.lock);
	scx_read(&s);
	if (s.enable_seq > now_attached.seq && (now_attached.ours || !now_attached.wanted)) {
		struct json j;
		char text[256];

		snprintf(text, sizeof(text), "enable_seq went from %llu to %llu without the runner (state %s, ops %s)",
			 (unsigned long long)now_attached.seq, (unsigned long long)s.enable_seq, s.state, s.ops);
		ev_begin(&j, "tampered");
		ev_str(&j, "what", text);
		ev_send(&j);
	}
	if (now_attached.ours && (strcmp(s.state, "enabled") || s.enable_seq != now_attached.seq)) {
		if (!now_attached.left_at)
			now_attached.left_at = now;
		now_attached.ours = false;
	}
	if (s.enable_seq > now_attached.seq && !now_attached.wanted)
		now_attached.seq = s.enable_seq;
	if (now_attached.left_at && !now_attached.exit_sent &&
	    (!strcmp(s.state, "disabled") || s.enable_seq != now_attached.seq || now - now_attached.left_at > EXIT_PATIENCE)) {
		now_attached.exit_sent = true;
		send_exit(now_attached.leaving);
		now_attached.seq = s.enable_seq;
	}
	pthread_mutex_unlock(&now_attached.lock);
}

/* 1 enabled by us, 0 not yet, -1 it will not be */
static int enabled_now(struct attach_result *r, uint64_t before, struct scx_state *s)
{
	scx_read(s);
	if (s->enable_seq == before)
		return 0;
	if (s->enable_seq != before + 1) {
		r->err = 0;
		snprintf(r->detail, sizeof(r->detail), "enable_seq went from %llu to %llu: enabled more than once",
			 (unsigned long long)before, (unsigned long long)s->enable_seq);
		return -1;
	}
	if (!strcmp(s->state, "enabled"))
		return 1;
	return -1;	/* was enabled and has left already */
}

static void ejected_detail(struct attach_result *r)
{
	struct kernel_exit k;
	struct uei_copy u;
	struct scx_state s;
	uint64_t end = now_ns() + EXIT_PATIENCE;

	/* It may be on its way out just now; the kernel says why before the state becomes `disabled`. */
	do {
		scx_read(&s);
		kernel_exit_get(&k);
		if (k.seen || !strcmp(s.state, "disabled"))
			break;
		sleep_ms(5);
	} while (now_ns() < end && !job_over());
	kernel_exit_get(&k);
	if (k.seen)
		snprintf(r->detail, sizeof(r->detail), "ejected: %.150s%s%.800s", k.reason, k.message[0] ? ": " : "", k.message);
	else if (object_uei(&u) && u.kind)
		snprintf(r->detail, sizeof(r->detail), "ejected: %.150s: %.800s", u.reason, u.message);
	else
		snprintf(r->detail, sizeof(r->detail), "not enabled, and neither candidate nor kernel says why");
}

static void confirm_object(struct attach_result *r, uint64_t before, uint64_t end)
{
	struct scx_state s;
	uint64_t grace = now_ns() + NSEC_PER_SEC;
	int e;

	r->stage = "enable";
	/* The attach call is synchronous: after it, the state is either enabled or on its way back. */
	while (!(e = enabled_now(r, before, &s)) && now_ns() < end) {
		if (!strcmp(s.state, "disabled") && now_ns() > grace)
			break;
		if (!strcmp(s.state, "disabled")) {
			struct kernel_exit k;

			kernel_exit_get(&k);
			if (k.seen)
				break;
		}
		sleep_ms(5);
	}
	if (e > 0 && strcmp(s.ops, r->ops)) {
		snprintf(r->detail, sizeof(r->detail), "root/ops is \"%s\", the object's is \"%s\"", s.ops, r->ops);
		e = -2;
	}
	r->enable_seq = s.enable_seq;
	r->ok = e > 0;
	if (!r->ok && e != -2 && !r->detail[0])
		ejected_detail(r);
}

static void confirm_program(struct attach_result *r, uint64_t before, uint64_t end)
{
	struct child *c = program_child();
	struct scx_state s;
	int e;

	r->stage = "enable";
	while (!(e = enabled_now(r, before, &s)) && now_ns() < end) {
		if (child_gone(c)) {
			/* it may have been enabled in between, and it may have more to say */
			e = enabled_now(r, before, &s);
			if (e > 0)
				e = -1;
			break;
		}
		sleep_ms(10);
	}
	r->enable_seq = s.enable_seq;
	snprintf(r->ops, sizeof(r->ops), "%s", s.ops);
	r->ok = e > 0;
	if (r->ok || r->detail[0])
		return;
	if (c->exited) {
		size_t n;

		r->stage = s.enable_seq == before ? "load" : "enable";
		children_drain();
		snprintf(r->detail, sizeof(r->detail), "the program ended before it was enabled: ");
		n = strlen(r->detail);
		program_end_text(r->detail + n, sizeof(r->detail) - n);
	} else if (e < 0) {
		ejected_detail(r);
	} else {
		r->err = ETIMEDOUT;
		snprintf(r->detail, sizeof(r->detail), "not enabled in time (state %s); it last said: %s", s.state, c->last_line);
	}
}

static struct attach_result attached;	/* static: a call that never returns still writes to it */
static bool kept;

static void send_attach(const struct attach_result *r, bool before)
{
	struct json j;

	ev_begin(&j, "attach");
	ev_bool(&j, "ok", r->ok);
	ev_str(&j, "stage", r->stage);
	ev_str(&j, "errno", r->err ? errno_name(r->err) : "");
	ev_str(&j, "detail", r->detail);
	ev_str(&j, "ops", r->ops);
	ev_u64(&j, "enable_seq", r->enable_seq);
	ev_u64(&j, "timeout_ms", r->timeout_ms);
	ev_u64(&j, "elapsed_ns", r->elapsed);
	if (before)
		ev_bool(&j, "before", true);
	ev_send(&j);
}

void scx_keep(void)
{
	kept = attached.ok;
}

static int attach_now(uint64_t ms, struct attach_result *r, char *why, size_t whylen)
{
	static bool stuck;
	struct scx_state before;
	uint64_t t0 = now_ns(), end = t0 + ms * NSEC_PER_MSEC, now;
	int e, result = 0;

	if (stuck) {
		snprintf(why, whylen, "an earlier attach call has not returned");
		return -EBUSY;
	}
	memset(r, 0, sizeof(*r));
	r->stage = "open";
	kernel_exit_reset();
	scx_read(&before);
	pthread_mutex_lock(&now_attached.lock);
	now_attached.wanted = true;
	now_attached.ours = now_attached.leaving = now_attached.exit_sent = false;
	now_attached.left_at = 0;
	now_attached.seq = before.enable_seq;
	now_attached.ops[0] = 0;
	pthread_mutex_unlock(&now_attached.lock);
	if (strcmp(before.state, "disabled")) {
		snprintf(r->detail, sizeof(r->detail), "sched_ext's state is \"%s\" before the attach", before.state);
		r->err = EBUSY;
	} else if (job.candidate == CANDIDATE_OBJECT) {
		e = pool_call(object_load, r, ms, &result);
		now = now_ns();
		if (!e && !result) {
			r->stage = "attach";
			e = pool_call(object_attach, r, end > now ? (end - now) / NSEC_PER_MSEC + 1 : 1, &result);
		}
		if (e) {
			stuck = true;
			r->err = -e;
			snprintf(r->detail, sizeof(r->detail), "%s has not returned in time", r->stage);
		} else if (!result) {
			confirm_object(r, before.enable_seq, end + NSEC_PER_SEC);
		}
	} else {
		kbtf_load();
		r->stage = "load";
		if (!program_start(r))
			confirm_program(r, before.enable_seq, end);
	}
	r->elapsed = now_ns() - t0;
	pthread_mutex_lock(&now_attached.lock);
	snprintf(now_attached.ops, sizeof(now_attached.ops), "%s", r->ops);
	if (r->ok) {
		now_attached.seq = r->enable_seq;
		now_attached.ours = true;
	} else {
		struct kernel_exit k;
		struct uei_copy u;

		kernel_exit_get(&k);
		/* whatever was enabled, or about to be, has left: that is an exit, also without a reason */
		if (k.seen || k.kind_seen || r->enable_seq > before.enable_seq || (object_uei(&u) && u.kind)) {
			now_attached.exit_sent = true;
			send_exit(false);
		}
		scx_read(&before);
		now_attached.seq = before.enable_seq;
	}
	pthread_mutex_unlock(&now_attached.lock);
	send_attach(r, false);
	if (r->ok)
		return 0;
	if (!stuck && job.candidate == CANDIDATE_OBJECT)
		object_close();
	if (job.candidate == CANDIDATE_PROGRAM && program_child()) {
		program_signal(9);
		for (int i = 0; i < 200 && !child_gone(program_child()); i++)
			sleep_ms(10);
		children_drain();
		program_forget();
	}
	snprintf(why, whylen, "%s: %s", r->stage, r->detail);
	return -EIO;
}

int scx_attach(uint64_t ms, char *why, size_t whylen)
{
	if (job.candidate == CANDIDATE_NONE)
		return 0;
	if (kept) {	/* it was attached before the machine was saved; if it has left since, the monitor says so */
		kept = false;
		send_attach(&attached, true);
		return 0;
	}
	return attach_now(ms, &attached, why, whylen);
}

static bool disabled_by(uint64_t end)
{
	struct scx_state s;

	for (;;) {
		scx_read(&s);
		if (!strcmp(s.state, "disabled"))
			return true;
		if (now_ns() >= end)
			return false;
		sleep_ms(2);
	}
}

static bool program_ends_by(uint64_t end)
{
	while (!child_gone(program_child())) {
		if (now_ns() >= end)
			return false;
		sleep_ms(2);
	}
	return true;
}

int scx_detach(uint64_t ms, bool kill, char *why, size_t whylen)
{
	static bool stuck;
	uint64_t t0 = now_ns(), end = t0 + ms * NSEC_PER_MSEC;
	struct scx_state s;
	bool was_ours, ok;
	char detail[512] = "";
	struct json j;
	int result;

	if (job.candidate == CANDIDATE_NONE)
		return 0;
	pthread_mutex_lock(&now_attached.lock);
	was_ours = now_attached.ours;
	now_attached.leaving = was_ours;
	pthread_mutex_unlock(&now_attached.lock);
	if (!was_ours)
		snprintf(detail, sizeof(detail), "was not enabled any more");
	if (job.candidate == CANDIDATE_OBJECT) {
		if (stuck) {
			snprintf(detail, sizeof(detail), "an earlier detach call has not returned");
		} else if (pool_call(object_detach, NULL, ms, &result)) {
			stuck = true;
			snprintf(detail, sizeof(detail), "the detach call has not returned in time");
		}
	} else if (program_child()) {
		static const struct { int sig; const char *name; } how[] = { { 2, "SIGINT" }, { 15, "SIGTERM" }, { 9, "SIGKILL" } };
		/* most of the time for the polite way, as that is what is to be tested */
		uint64_t until[] = { t0 + (end - t0) * 6 / 10, t0 + (end - t0) * 8 / 10, end };
		bool ended = child_gone(program_child());

		if (ended && was_ours)
			snprintf(detail, sizeof(detail), "the program had ended by itself");
		for (int i = kill ? 2 : 0; i < 3 && !ended; i++) {
			program_signal(how[i].sig);
			ended = program_ends_by(until[i]);
			if (!ended)
				snprintf(detail, sizeof(detail), "the program did not end on %s", how[i].name);
		}
	}
	ok = disabled_by(end) && !stuck;
	/* Wait for the monitor to have told the exit, so that the stream has things in their order. */
	for (int i = 0; i < 100 && (was_ours || now_attached.left_at) && ok && !now_attached.exit_sent; i++) {
		scx_watch();
		sleep_ms(1);
	}
	if (job.candidate == CANDIDATE_PROGRAM && program_child()) {
		children_drain();
		if (child_gone(program_child()))
			program_forget();
	}
	if (job.candidate == CANDIDATE_OBJECT && !stuck)
		object_close();
	scx_read(&s);
	if (!ok && !detail[0])
		snprintf(detail, sizeof(detail), "state is \"%s\"", s.state);
	pthread_mutex_lock(&now_attached.lock);
	now_attached.wanted = false;
	if (ok)
		now_attached.ours = false;
	pthread_mutex_unlock(&now_attached.lock);
	ev_begin(&j, "detach");
	ev_bool(&j, "ok", ok);
	ev_u64(&j, "elapsed_ns", now_ns() - t0);
	ev_str(&j, "state", s.state);
	ev_str(&j, "detail", detail);
	ev_send(&j);
	if (!ok)
		snprintf(why, whylen, "%s", detail);
	return ok ? 0 : -EIO;
}
