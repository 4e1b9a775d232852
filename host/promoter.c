// SPDX-License-Identifier: GPL-2.0-only
/* The verbs that a promoter, or a person, calls: they ask the watcher, and otherwise the kernel. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host.h"

#define UNIT "testbed-host.service"
#define APPEAR (10 * NSEC_PER_SEC)	/* for the watcher to be there */
#define STOP_PATIENCE_MS 90000	/* the watcher tries for a minute */
#define ATTACHED (180 * NSEC_PER_SEC)	/* for the scheduler to be attached: checks, load and attach have their own limits */

static bool is_active(const struct record *r)
{
	return !strcmp(r->phase, "starting") || !strcmp(r->phase, "canary") || !strcmp(r->phase, "kept");
}

static bool same_boot(const struct record *r)
{
	char boot[40];

	boot_id(boot);
	return !strcmp(r->boot, boot);
}

static bool is_enabled(const struct scx_state *s)
{
	return s->present && s->state[0] && strcmp(s->state, "disabled");
}

static bool is_mine(const struct scx_state *s, const struct record *r)
{
	return is_enabled(s) && same_boot(r) && !strcmp(s->ops, r->ops) && s->enable_seq == r->enable_seq;
}

void check_kernel_now(json *refusals, const struct record *ours)
{
	struct scx_state s;
	char text[256];

	scx_read(&s);
	if (!s.present)
		refuse(refusals, "no-sched-ext", "boot a kernel with CONFIG_SCHED_CLASS_EXT", "this kernel has no sched_ext");
	else if (is_enabled(&s) && !(ours && is_mine(&s, ours)))
		refuse(refusals, "other-scheduler", "end it first; nobody's scheduler is replaced in silence",
		       "another scheduler, `%s`, is %s here", s.ops, s.state);
	if (read_word(PROC_DIR "/pressure/cpu", text, sizeof(text)) <= 0)
		refuse(refusals, "no-pressure", "boot with psi=1", "this kernel does not measure pressure (PSI), so `limits.pressure` can't be watched");
}

static void open_or_fail(const char *id, struct bundle *b)
{
	int e = bundle_open(id, b);

	if (e == -ENOENT)
		fail(EXIT_REFUSED, "not-staged", "upload it, then: testbed-host stage DIR", "there is no bundle `%.64s` here", id);
	if (e)
		fail(EXIT_REFUSED, "damaged-bundle", "stage it again", "the bundle `%s` is damaged", id);
}

static json *document(const struct bundle *b, const struct law *law, const struct record *ours, struct told *told, bool *fine)
{
	json *o = json_object_new_object(), *attempts = json_object_new_object();
	json *refusals = verify(b, law, told);

	check_kernel_now(refusals, ours);
	*fine = !json_object_array_length(refusals);
	json_put_bool(o, "ok", *fine);
	json_put_text(o, "id", b->id);
	json_put_text(o, "subject", b->subject);
	json_put_text(o, "case", told->case_id);
	json_put_text(o, "name", b->name);
	json_put_text(o, "kind", json_text(b->candidate, "kind"));
	json_put_text(o, "key", told->keyid);
	json_put_i64(o, "attested", told->attested);
	json_put_text(o, "kernel", told->kernel);
	json_put_text(o, "policy", law->name);
	json_put_i64(attempts, "used", attempts_used(b->subject, false));
	json_put_i64(attempts, "allowed", law->attempts);
	json_object_object_add(o, "attempts", attempts);
	json_object_object_add(o, "refusals", refusals);
	return o;
}

/* The record, if what it speaks of may be running now. */
static const struct record *running(struct record *r)
{
	return !record_read(CURRENT_FILE, r) && is_active(r) && same_boot(r) ? r : NULL;
}

int verb_check(const char *id)
{
	struct told told = { 0 };
	struct bundle b;
	struct record r;
	struct law law;
	bool fine;

	law_load(&law);
	open_or_fail(id, &b);
	json_print(document(&b, &law, running(&r), &told, &fine));
	return fine ? EXIT_FINE : EXIT_REFUSED;
}

static int start_unit(void)
{
	static const char *const places[] = { ROOT "/usr/bin/systemctl", ROOT "/bin/systemctl" };
	int status;
	pid_t pid = fork();

	if (!pid) {
		dup2(2, 1);
		for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
			execl(places[i], "systemctl", "start", UNIT, NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static json *about(const struct record *r)
{
	json *o = json_object_new_object();

	json_put_text(o, "id", r->id);
	json_put_text(o, "subject", r->subject);
	json_put_text(o, "case", r->case_id);
	return o;
}

static void log_or_fail(const char *what, json *fields)
{
	int e = audit(what, fields);

	if (e == -ENOSPC || e == -EDQUOT)
		fail(EXIT_HOST, "disk-full", "free space on the file system of " STATE_DIR, "the log can't be written: %s", strerror(-e));
	if (e)
		fail(EXIT_HOST, "log-not-written", "look at " AUDIT_FILE, "the log can't be written: %s", strerror(-e));
}

static bool ended_by(uint64_t end)
{
	while (watcher_alive()) {
		if (now_ns() > end)
			return false;
		sleep_ms(10);
	}
	return true;
}

/* What ran when the machine went down, or whose watcher is dead, is put right before anything else begins. */
static void settle(struct record *r)
{
	json *o;

	if (record_read(CURRENT_FILE, r) || !is_active(r) || watcher_alive())
		return;
	o = about(r);
	json_put_text(o, "phase", r->phase);
	json_put_text(o, "message", same_boot(r) ? "its watcher is gone" : "the machine went down");
	log_or_fail("lost", o);
	copy_text(r->phase, sizeof(r->phase), "stopped");
	copy_text(r->limit, sizeof(r->limit), same_boot(r) ? "watcher-gone" : "rebooted");
	record_write(CURRENT_FILE, r);
}

static void not_started(struct record *r, const char *code, const char *message)
{
	json *o = about(r);

	json_put_text(o, "message", message);
	audit("not-started", o);
	copy_text(r->phase, sizeof(r->phase), "stopped");
	copy_text(r->limit, sizeof(r->limit), "not-started");
	copy_text(r->kernel_end, sizeof(r->kernel_end), message);
	record_write(CURRENT_FILE, r);
	reserve_give();
	fail(EXIT_HOST, code, "journalctl -u " UNIT, "%s", message);
}

static int wait_for_word(struct record *r, const struct law *law)
{
	static struct line_buffer b;
	uint64_t begin = now_ns();
	struct record now;
	int fd = -1;

	while (now_ns() < begin + ATTACHED) {
		json *o, *out, *stages;
		const char *event;
		bool closed = false;

		if (fd < 0) {
			fd = client_open();
			if (fd >= 0 && write_all(fd, "follow\n", 7)) {
				close(fd);
				fd = -1;
			}
		}
		if (fd < 0) {
			/* It may have come and gone, and then it has said in the record why. */
			if (!watcher_alive() && !record_read(CURRENT_FILE, &now) && strcmp(now.phase, "starting"))
				fail(EXIT_HOST, "unit-failed", "testbed-host history", "the watcher has ended: %s: %s", now.limit, now.kernel_end);
			if (now_ns() > begin + APPEAR && !watcher_alive())
				not_started(r, "unit-failed", "the watcher did not start");
			sleep_ms(20);
			continue;
		}
		o = client_line(fd, &b, now_ns() + NSEC_PER_SEC, &closed);
		event = json_text(o, "event");
		if (closed) {
			close(fd);
			fd = -1;
			b.n = 0;
			continue;
		}
		if (event && !strcmp(event, "attached")) {
			out = json_object_new_object();
			stages = json_object_new_array();
			for (int i = 0; i < law->nstages; i++) {
				json *one = json_object_new_object();

				json_put_text(one, "name", law->stages[i].name);
				json_put_text(one, "scope", law->stages[i].partial ? "partial" : "all");
				json_put_u64(one, "duration_ms", law->stages[i].duration_ms);
				json_object_array_add(stages, one);
			}
			json_put_bool(out, "started", true);
			json_put_text(out, "id", r->id);
			json_put_text(out, "subject", r->subject);
			json_put_text(out, "case", r->case_id);
			json_put_text(out, "ops", json_text(o, "ops"));
			json_object_object_add(out, "enable_seq", json_object_get(json_object_object_get(o, "enable_seq")));
			json_put_text(out, "stage", law->stages[0].name);
			json_object_object_add(out, "stages", stages);
			json_print(out);
			return EXIT_FINE;
		}
		if (event && !strcmp(event, "rollback")) {
			out = json_object_new_object();
			json_put_bool(out, "started", false);
			json_put_text(out, "id", r->id);
			json_object_object_add(out, "event", o);
			json_print(out);
			return EXIT_REFUSED;
		}
		json_object_put(o);
	}
	fail(EXIT_HOST, "unit-failed", "testbed-host status", "the watcher has not said within 3 minutes that it attached anything");
}

int verb_start(const char *id)
{
	char holder[300] = "", words[200], previous[HEX] = "";
	struct told told = { 0 };
	struct record old, r = { 0 };
	const struct record *ours;
	struct bundle b;
	struct law law;
	bool fine;
	json *o;
	int lock, e;

	law_load(&law);
	open_or_fail(id, &b);
	snprintf(words, sizeof(words), "%s, pid %d, since %lld, with %.16s\n", who(), (int)getpid(), (long long)wall_s(), id);
	lock = lock_take(LOCK_FILE, words, holder, sizeof(holder));
	if (lock == -EWOULDBLOCK)
		fail(EXIT_REFUSED, "busy", "wait until it is over", "another promoter is at work: %s", holder);
	if (lock < 0)
		fail(EXIT_HOST, "io", "look at " RUN_DIR, "can't take the lock: %s", strerror(-lock));
	ours = running(&old);
	if (ours && watcher_alive() && strcmp(old.phase, "kept"))
		fail(EXIT_REFUSED, "busy", "wait until it is over, or: testbed-host stop", "a canary of %s is running: bundle %.16s, stage `%s`",
		     old.by, old.id, old.stage);
	if (ours && watcher_alive() && !strcmp(old.id, id))
		fail(EXIT_REFUSED, "busy", "nothing is to be done, or: testbed-host stop", "this bundle is running here already");
	o = document(&b, &law, ours, &told, &fine);
	copy_text(r.id, sizeof(r.id), b.id);
	copy_text(r.subject, sizeof(r.subject), b.subject);
	copy_text(r.case_id, sizeof(r.case_id), told.case_id);
	copy_text(r.by, sizeof(r.by), who());
	if (!fine) {
		json *log = about(&r), *codes = json_object_new_array(), *refusals = json_object_object_get(o, "refusals");

		for (size_t i = 0; i < json_object_array_length(refusals); i++)
			json_object_array_add(codes, json_object_get(json_object_object_get(json_object_array_get_idx(refusals, i), "code")));
		json_object_object_add(log, "codes", codes);
		audit("refused", log);
		json_put_bool(o, "started", false);
		json_print(o);
		return EXIT_REFUSED;
	}
	json_object_put(o);
	e = reserve_make();
	if (e)
		fail(EXIT_HOST, e == -ENOSPC || e == -EDQUOT ? "disk-full" : "io", "free space on the file system of " STATE_DIR,
		     "no room to write what may happen: %s", strerror(-e));
	if (ours && watcher_alive()) {
		json *answer = client_ask("stop", STOP_PATIENCE_MS);
		bool back = json_object_get_boolean(json_get(answer, "stopped", json_type_boolean));

		if (!back || !ended_by(now_ns() + APPEAR))
			fail(EXIT_HOST, "no-watcher", "testbed-host status", "the scheduler that runs here could not be taken back");
		copy_text(previous, sizeof(previous), old.id);
	}
	settle(&old);
	copy_text(r.previous, sizeof(r.previous), previous);
	copy_text(r.phase, sizeof(r.phase), "starting");
	boot_id(r.boot);
	r.started = wall_s();
	o = about(&r);
	json_put_text(o, "name", b.name);
	json_put_text(o, "key", told.keyid);
	json_put_text(o, "policy", law.name);
	json_put_text(o, "previous", previous);
	log_or_fail("start", o);
	e = record_write(CURRENT_FILE, &r);
	if (e)
		not_started(&r, e == -ENOSPC || e == -EDQUOT ? "disk-full" : "io", "the record can't be written");
	e = start_unit();
	if (e)
		not_started(&r, "unit-failed", "systemctl could not start the watcher");
	return wait_for_word(&r, &law);
}

/* Ours, and nobody watches it: the kernel's own key is all that is left. */
static int take_back_orphan(struct record *r)
{
	uint64_t t0 = now_ns();
	json *o = about(r);
	bool back;

	scx_sysrq();
	back = scx_disabled_by(t0 + 10 * NSEC_PER_SEC);
	json_put_bool(o, "back", back);
	json_put_u64(o, "back_us", (now_ns() - t0) / 1000);
	json_put_text(o, "how", "sysrq");
	json_put_text(o, "why", "orphan");
	audit(back ? "stopped" : "not-back", json_object_get(o));
	copy_text(r->phase, sizeof(r->phase), back ? "stopped" : "rolled-back");
	record_write(CURRENT_FILE, r);
	json_put_bool(o, "stopped", back);
	json_print(o);
	return back ? EXIT_FINE : EXIT_HOST;
}

int verb_stop(void)
{
	struct scx_state s;
	struct record r;

	if (watcher_alive()) {
		json *answer = client_ask("stop", STOP_PATIENCE_MS);
		bool back = json_object_get_boolean(json_get(answer, "stopped", json_type_boolean));

		if (!answer && !ended_by(now_ns() + NSEC_PER_SEC))
			fail(EXIT_HOST, "no-watcher", "testbed-host status; the kernel's own way back is `S` into /proc/sysrq-trigger",
			     "the watcher does not answer");
		if (answer) {
			ended_by(now_ns() + APPEAR);
			json_print(answer);
			return back ? EXIT_FINE : EXIT_HOST;
		}
	}
	scx_read(&s);
	if (!record_read(CURRENT_FILE, &r) && is_mine(&s, &r))
		return take_back_orphan(&r);
	settle(&r);
	fail(EXIT_REFUSED, "not-running", "testbed-host status", "nothing of ours is running here (state `%s`%s%s)", s.state,
	     s.ops[0] ? ", scheduler " : "", s.ops);
}

static void last_rollback(json *line, void *arg)
{
	const char *what = json_text(line, "what");
	json **last = arg;

	if (!what || (strcmp(what, "rolled-back") && strcmp(what, "not-back")))
		return;
	json_object_put(*last);
	*last = json_object_get(line);
}

/* What a follower that came too late would have heard: a scheduler may be gone before anybody else gets a CPU. */
int verb_follow(void)
{
	struct record r;
	json *last = NULL, *o;
	int torn, lines, e = client_follow();

	if (e >= 0)
		return e ? EXIT_REFUSED : EXIT_FINE;
	ended_by(now_ns() + NSEC_PER_SEC);
	if (watcher_alive() || record_read(CURRENT_FILE, &r) || is_active(&r) || !same_boot(&r))
		fail(EXIT_HOST, "no-watcher", "testbed-host status", "there is no watcher to follow: %s", strerror(-e));
	audit_walk(last_rollback, &last, &torn, &lines);
	if (last && !strcmp(json_text(last, "id") ?: "", r.id)) {
		json_put_text(last, "event", "rollback");
		json_put_bool(last, "logged", true);
		json_print(json_object_get(last));
	}
	o = json_object_new_object();
	json_put_text(o, "event", "done");
	json_put_text(o, "outcome", r.phase);
	json_print(o);
	return EXIT_REFUSED;
}

int verb_status(void)
{
	json *o = json_object_new_object(), *kernel = json_object_new_object(), *wrong = json_object_new_array(), *rec = NULL, *live = NULL, *last = NULL;
	bool alive = watcher_alive(), known, active, mine, enabled;
	const char *holder;
	struct scx_state s;
	struct record r;
	int torn, lines;

	scx_read(&s);
	known = !record_read(CURRENT_FILE, &r);
	active = known && is_active(&r);
	enabled = is_enabled(&s);
	mine = known && is_mine(&s, &r);
	holder = !enabled ? "nobody" : !mine ? "other" : alive ? "ours" : "orphan";
#define WRONG(text) json_object_array_add(wrong, json_object_new_string(text))
	if (active && !same_boot(&r)) {
		WRONG("rebooted");
	} else if (active && !(alive && !strcmp(r.phase, "starting"))) {
		if (!alive)
			WRONG("watcher-gone");
		if (!enabled)
			WRONG("not-enabled");
		else if (!mine)
			WRONG(strcmp(s.ops, r.ops) ? "other-scheduler" : "enable-seq");
		else if (!alive)
			WRONG("orphan");
	}
	if (!active && enabled)
		WRONG(mine ? "still-enabled" : known ? "other-scheduler" : "no-record");
#undef WRONG
	if (known) {
		rec = about(&r);
		json_put_text(rec, "previous", r.previous);
		json_put_text(rec, "phase", r.phase);
		json_put_text(rec, "stage", r.stage);
		json_put_text(rec, "ops", r.ops);
		json_put_u64(rec, "enable_seq", r.enable_seq);
		json_put_i64(rec, "started", r.started);
		json_put_i64(rec, "since", r.since);
		json_put_text(rec, "by", r.by);
		json_put_text(rec, "boot", r.boot);
		json_put_text(rec, "limit", r.limit);
		json_put_text(rec, "message", r.kernel_end);
	}
	if (alive) {
		json *answer = client_ask("status", 2000);

		live = json_object_get(json_object_object_get(answer, "live"));
		json_object_put(answer);
	}
	audit_walk(last_rollback, &last, &torn, &lines);
	json_put_text(kernel, "state", s.state);
	json_put_text(kernel, "ops", s.ops);
	json_put_u64(kernel, "enable_seq", s.enable_seq);
	json_put_text(o, "schema", "testbed.host-status/1");
	json_put_bool(o, "healthy", !json_object_array_length(wrong));
	json_object_object_add(o, "kernel", kernel);
	json_object_object_add(o, "record", rec);
	json_put_bool(o, "watcher", alive);
	json_put_text(o, "holder", holder);
	json_put_i64(o, "age_s", mine ? wall_s() - r.since : 0);
	json_object_object_add(o, "live", live);
	json_put_i64(o, "attempts", known ? attempts_used(r.subject, false) : 0);
	json_object_object_add(o, "last_rollback", last);
	json_object_object_add(o, "discrepancies", wrong);
	active = json_object_array_length(wrong);
	json_print(o);
	return active ? EXIT_REFUSED : EXIT_FINE;
}

static void add_line(json *line, void *arg)
{
	json_object_array_add(arg, json_object_get(line));
}

int verb_history(void)
{
	json *o = json_object_new_object(), *lines = json_object_new_array();
	int torn, count, broken = audit_walk(add_line, lines, &torn, &count);

	json_put_text(o, "schema", "testbed.host-history/1");
	json_put_bool(o, "sound", !broken);
	json_put_i64(o, "broken", broken);
	json_put_i64(o, "torn", torn);
	json_object_object_add(o, "lines", lines);
	json_print(o);
	return broken ? EXIT_REFUSED : EXIT_FINE;
}

int verb_forgive(const char *id)
{
	struct bundle b;
	json *o, *out;

	open_or_fail(id, &b);
	o = json_object_new_object();
	json_put_text(o, "id", b.id);
	json_put_text(o, "subject", b.subject);
	out = json_object_get(o);
	log_or_fail("forgiven", o);
	json_put_bool(out, "forgiven", true);
	json_print(out);
	return EXIT_FINE;
}
