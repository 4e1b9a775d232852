// SPDX-License-Identifier: GPL-2.0-only
/* The job: its text and its steps. Steps run on a thread of their own; what can block for ever goes to the pool. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner.h"

#define MAX_STEPS 4096
#define MAX_WORDS 400
#define WHY 1200

struct job job;

/* ---- text ---- */

static int hexval(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* In place; false for a broken escape or a NUL, which no word may have. */
static bool unescape(char *w)
{
	char *to = w;

	if (!strcmp(w, "%")) {
		*w = 0;
		return true;
	}
	for (; *w; w++) {
		int hi, lo;

		if (*w != '%') {
			*to++ = *w;
			continue;
		}
		hi = hexval(w[1]);
		lo = hi < 0 ? -1 : hexval(w[2]);
		if (lo < 0 || !(hi | lo))
			return false;
		*to++ = (char)(hi << 4 | lo);
		w += 2;
	}
	*to = 0;
	return true;
}

static bool number(const char *w, uint64_t *v)
{
	char *end;

	if (*w < '0' || *w > '9')
		return false;
	errno = 0;
	*v = strtoull(w, &end, 10);
	return !*end && !errno;
}

static const struct { const char *verb; int min, max; const char *numbers; } verbs[] = {
	/* numbers: which words (as digits) must be numbers */
	{ "sysctl", 2, 2, "" },	    { "write", 2, 2, "" },	      { "attach", 1, 1, "1" },
	{ "detach", 1, 2, "1" },    { "cycle", 2, 2, "12" },	      { "start", 2, 20, "" },
	{ "exec", 2, MAX_WORDS, "" }, { "wait", 2, 2, "2" },	      { "stop", 1, MAX_WORDS, "" },
	{ "sleep", 1, 1, "1" },	    { "hold", 1, 1, "1" },	      { "begin", 1, 1, "" },
	{ "end", 1, 1, "" },	    { "health", 1, 1, "1" },	      { "cpu", 3, 3, "23" },
	{ "save", 0, 0, "" },	    { "cgroup", 2, 20, "" },
};

static bool step_ok(int n, char **w)
{
	uint64_t v;

	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (strcmp(w[0], verbs[i].verb))
			continue;
		if (n - 1 < verbs[i].min || n - 1 > verbs[i].max)
			return false;
		for (const char *p = verbs[i].numbers; *p; p++)
			if (!number(w[*p - '0'], &v))
				return false;
		if (!strcmp(w[0], "detach") && n > 2 && strcmp(w[2], "kill"))
			return false;
		if (!strcmp(w[0], "cgroup"))
			return !strcmp(w[1], "make") || (!strcmp(w[1], "remove") && n == 3);
		return strcmp(w[0], "cpu") || !strcmp(w[1], "online") || !strcmp(w[1], "offline");
	}
	return false;
}

int job_parse(char *text, struct job *j, char *why, size_t whylen)
{
	static const struct { const char *name; size_t at; } settings[] = {
		{ "seed", offsetof(struct job, seed) },		  { "limit", offsetof(struct job, limit_ms) },
		{ "heartbeat", offsetof(struct job, heartbeat_ms) }, { "watchdog", offsetof(struct job, watchdog_ms) },
		{ "timeout_ms", offsetof(struct job, timeout_ms) }, { "starved", offsetof(struct job, starved_ms) },
		{ "oracle", offsetof(struct job, oracle) },	  { "callbacks", offsetof(struct job, callbacks) },
	};
	int line_no = 0;
	char *save = NULL;

	memset(j, 0, sizeof(*j));
	j->heartbeat_ms = 250;
	j->oracle = 1;
	j->steps = calloc(MAX_STEPS, sizeof(*j->steps));
	if (!j->steps)
		return -ENOMEM;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *w[MAX_WORDS + 1], *save2 = NULL, **copy;
		int n = 0;
		bool known = false;

		line_no++;
		for (char *p = strtok_r(line, " ", &save2); p; p = strtok_r(NULL, " ", &save2)) {
			if (n == MAX_WORDS || !unescape(p)) {
				snprintf(why, whylen, "line %d: %s", line_no, n == MAX_WORDS ? "too many words" : "broken escape");
				return -EINVAL;
			}
			w[n++] = p;
		}
		if (!n)
			continue;
		w[n] = NULL;
		if (line_no == 1) {
			if (n != 2 || strcmp(w[0], "testbed-job") || strcmp(w[1], "1")) {
				snprintf(why, whylen, "not a testbed-job 1");
				return -EINVAL;
			}
			continue;
		}
		for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]) && !j->nsteps; i++) {
			if (strcmp(w[0], settings[i].name))
				continue;
			known = n == 2 && number(w[1], (uint64_t *)((char *)j + settings[i].at));
			if (!known) {
				snprintf(why, whylen, "line %d: bad setting", line_no);
				return -EINVAL;
			}
		}
		copy = malloc((size_t)(n + 1) * sizeof(*copy));
		if (!copy)
			return -ENOMEM;
		memcpy(copy, w, (size_t)(n + 1) * sizeof(*copy));
		if (!known && !j->nsteps && !strcmp(w[0], "candidate")) {
			if (n == 2 && !strcmp(w[1], "none"))
				j->candidate = CANDIDATE_NONE;
			else if (n == 3 && !strcmp(w[1], "object"))
				j->candidate = CANDIDATE_OBJECT;
			else if (n >= 3 && !strcmp(w[1], "program"))
				j->candidate = CANDIDATE_PROGRAM;
			else {
				snprintf(why, whylen, "line %d: bad candidate", line_no);
				return -EINVAL;
			}
			j->args = copy + 2;
			j->nargs = n - 2;
			continue;
		}
		if (known)
			continue;
		if (j->nsteps == MAX_STEPS || !step_ok(n, w)) {
			snprintf(why, whylen, "line %d: not a step: %.60s", line_no, w[0]);
			return -EINVAL;
		}
		j->steps[j->nsteps].nwords = n;
		j->steps[j->nsteps++].words = copy;
	}
	if (!line_no) {
		snprintf(why, whylen, "empty job");
		return -EINVAL;
	}
	return 0;
}

const char *job_path(const char *path, char *buf, size_t n)
{
	if (*path == '/')
		snprintf(buf, n, "%s", path);
	else
		snprintf(buf, n, "/job/%s", path);
	return buf;
}

/* ---- programs of scenarios ---- */

#define MAX_EXECS 64
static struct { char name[64]; struct child *child; int group; } execs[MAX_EXECS];

static struct child *find_exec(const char *name)
{
	for (int i = 0; i < MAX_EXECS; i++)
		if (execs[i].child && !strcmp(execs[i].name, name))
			return execs[i].child;
	return NULL;
}

static void forget_exec(struct child *c)
{
	for (int i = 0; i < MAX_EXECS; i++)
		if (execs[i].child == c) {
			oracle_report(execs[i].group);
			execs[i].child = NULL;
		}
	children_drain();
	child_free(c);
}

struct exec_call { char **argv; struct child *child; char name[64]; int err, group; };

static int exec_call(void *p)
{
	struct exec_call *c = p;
	struct logsrc l;
	char name[48];

	snprintf(name, sizeof(name), "exec:%.40s", c->name);
	log_init(&l, name, LOG_LIMIT);
	oracle_spawning(c->group);
	c->child = child_spawn(CHILD_EXEC, c->argv, true, NULL, &c->err);
	oracle_spawning(0);
	if (!c->child)
		return c->err;
	c->child->log = l;
	c->child->to = &c->child->log;
	return 0;
}

static int do_exec(int n, char **w, char *why)
{
	static struct exec_call call;
	static char *argv[MAX_WORDS + 2], path[4096];
	int r, result = 0, at = -1;

	for (int i = 0; i < MAX_EXECS; i++)
		if (!execs[i].child)
			at = i;
	if (find_exec(w[1]) || at < 0) {
		snprintf(why, WHY, find_exec(w[1]) ? "it runs already" : "too many programs");
		return -EEXIST;
	}
	argv[0] = "exec";
	/* a word without a slash is looked for in PATH */
	argv[1] = strchr(w[2], '/') ? (char *)job_path(w[2], path, sizeof(path)) : w[2];
	for (int i = 3; i <= n; i++)
		argv[i - 1] = w[i];
	argv[n] = NULL;
	memset(&call, 0, sizeof(call));
	call.argv = argv;
	snprintf(call.name, sizeof(call.name), "%s", w[1]);
	call.group = oracle_group(w[1]);
	r = pool_call(exec_call, &call, 5000, &result);
	if (r || result) {
		snprintf(why, WHY, "fork: %s", errno_name(r ? r : result));
		return r ? r : result;
	}
	snprintf(execs[at].name, sizeof(execs[at].name), "%s", w[1]);
	execs[at].child = call.child;
	execs[at].group = call.group;
	return 0;
}

static bool ends_by(struct child *c, uint64_t end, bool even_if_gone)
{
	while (!child_gone(c)) {
		if (now_ns() >= end || job_over() || (!even_if_gone && scx_is_gone()))
			return false;
		sleep_ms(5);
	}
	return true;
}

static int stop_exec(struct child *c, char *why)
{
	child_signal(c, SIGTERM);
	if (!ends_by(c, now_ns() + NSEC_PER_SEC, true)) {
		child_signal(c, SIGKILL);
		if (!ends_by(c, now_ns() + 5 * NSEC_PER_SEC, true)) {
			snprintf(why, WHY, "it has not died 5 s after SIGKILL");
			return -ETIMEDOUT;
		}
	}
	forget_exec(c);
	return 0;
}

static int do_wait(const char *name, uint64_t ms, char *why)
{
	struct child *c = find_exec(name);
	int st, r = 0;

	if (!c) {
		snprintf(why, WHY, "no such program");
		return -ENOENT;
	}
	if (!ends_by(c, now_ns() + ms * NSEC_PER_MSEC, false)) {
		char more[WHY] = "";

		r = stop_exec(c, more);
		snprintf(why, WHY, "%s%s%s", scx_is_gone() ? "cut short: the candidate is not enabled" : "not ended in time; killed",
			 r ? "; " : "", more);
		return -ETIMEDOUT;
	}
	children_drain();	/* its last words */
	st = c->status;
	if (WIFSIGNALED(st)) {
		snprintf(why, WHY, "killed by signal %d", WTERMSIG(st));
		r = -EINTR;
	} else if (WEXITSTATUS(st)) {
		snprintf(why, WHY, "exit status %d; last line: %s", WEXITSTATUS(st), c->last_line);
		r = -ECHILD;
	}
	forget_exec(c);
	return r;
}

/* ---- steps ---- */

/* Waits in small bits, so that an ejection or the job's limit ends it. */
static int wait_ms(uint64_t ms, bool hold, char *why)
{
	uint64_t end = now_ns() + ms * NSEC_PER_MSEC;

	while (now_ns() < end) {
		uint64_t step = now_ns() + 10 * NSEC_PER_MSEC;

		if (job_over()) {
			snprintf(why, WHY, "the job's limit");
			return -ETIME;
		}
		if (scx_is_gone() || (hold && job.candidate != CANDIDATE_NONE && !scx_is_ours())) {
			snprintf(why, WHY, "cut short: the candidate is not enabled");
			return -ENODEV;
		}
		sleep_until(step < end ? step : end);
	}
	return 0;
}

static int do_write(const char *path, const char *value)
{
	int e = write_file(path, value);
	char text[512];
	struct json j;

	if (!e)
		return 0;
	snprintf(text, sizeof(text), "cannot write %.300s: %s\n", path, errno_name(e));
	ev_begin(&j, "log");
	ev_str(&j, "source", "runner");
	ev_u64(&j, "lost", 0);
	ev_str(&j, "text", text);
	ev_send(&j);
	return e;
}

static uint64_t num(const char *w)
{
	return strtoull(w, NULL, 10);
}

static int run_step(int n, char **w, char *why)
{
	const char *v = w[0];
	char path[512];

	if (!strcmp(v, "sysctl")) {
		snprintf(path, sizeof(path), "/proc/sys/%s", w[1]);
		int e = write_file(path, w[2]);

		if (e)
			snprintf(why, WHY, "%s: %s", path, errno_name(e));
		return e;
	}
	if (!strcmp(v, "write")) {
		int e = do_write(w[1], w[2]);

		if (e)
			snprintf(why, WHY, "%s (not fatal)", errno_name(e));
		return 0;
	}
	if (!strcmp(v, "attach"))
		return scx_attach(num(w[1]), why, WHY);
	if (!strcmp(v, "detach"))
		return scx_detach(num(w[1]), n > 2, why, WHY);
	if (!strcmp(v, "cycle")) {
		for (uint64_t i = 0; i < num(w[1]); i++) {
			char one[WHY] = "", two[WHY] = "";
			int e = scx_attach(num(w[2]), one, WHY), d;

			if (!e)
				e = wait_ms(50, true, one);
			/* also after a failure: the state must be clean for what follows */
			d = scx_detach(num(w[2]), false, two, WHY);
			if (e || d) {
				snprintf(why, WHY, "cycle %llu: %.1100s", (unsigned long long)i, e ? one : two);
				return e ? e : d;
			}
			if (job_over())
				return -ETIME;
		}
		return 0;
	}
	if (!strcmp(v, "start"))
		return load_start(n - 1, w + 1, why, WHY);
	if (!strcmp(v, "exec"))
		return do_exec(n - 1, w, why);
	if (!strcmp(v, "wait"))
		return do_wait(w[1], num(w[2]), why);
	if (!strcmp(v, "stop")) {
		int r = 0;

		for (int i = 1; i < n; i++) {
			int e = load_stop(w[i], why, WHY);

			if (e == -ENOENT) {
				struct child *c = find_exec(w[i]);

				if (c)
					e = stop_exec(c, why);
				else
					snprintf(why, WHY, "nothing of the name %s", w[i]);
			}
			if (e)
				r = e;
		}
		return r;
	}
	if (!strcmp(v, "sleep"))
		return wait_ms(num(w[1]), false, why);
	if (!strcmp(v, "hold"))
		return wait_ms(num(w[1]), true, why);
	if (!strcmp(v, "begin")) {
		window_begin(w[1]);
		return 0;
	}
	if (!strcmp(v, "end")) {
		if (!window_end(w[1]))
			return 0;
		snprintf(why, WHY, "no such window is open");
		return -ENOENT;
	}
	if (!strcmp(v, "cpu"))
		return cpu_switch(w[1], (int)num(w[2]), num(w[3]), why, WHY);
	if (!strcmp(v, "cgroup"))
		return strcmp(w[1], "make") ? cgroup_remove(w[2], why, WHY) : cgroup_make(w[2], n - 3, w + 3, why, WHY);
	if (!strcmp(v, "health"))
		return health_check(num(w[1]), why, WHY) ? 0 : -EIO;
	return -EINVAL;
}

void job_run(void)
{
	bool all = true;

	for (int i = 0; i < job.nsteps && !job_over(); i++) {
		struct step *s = &job.steps[i];
		uint64_t t0 = now_ns();
		char why[WHY] = "";
		struct json j;
		int e;

		ev_begin(&j, "step");
		ev_i64(&j, "i", i);
		ev_str(&j, "verb", s->words[0]);
		ev_send(&j);
		if (!strcmp(s->words[0], "save")) {
			e = all ? world_saved(why, WHY) : -ENODEV;
			if (!e) {
				i = -1;	/* another job's first step is next */
				continue;
			}
		} else {
			e = run_step(s->nwords, s->words, why);
		}
		all &= !e;
		ev_begin(&j, "done");
		ev_i64(&j, "i", i);
		ev_bool(&j, "ok", !e);
		ev_str(&j, "detail", why[0] || !e ? why : errno_name(e));
		ev_u64(&j, "elapsed_ns", now_ns() - t0);
		ev_send(&j);
	}
	loads_kill_all();
	/* A scheduler that is left attached would keep the way to the power switch. */
	if (scx_is_ours() && !job_over()) {
		char why[WHY] = "";

		scx_detach(5000, false, why, WHY);
	}
	monitor_steps_done(all);
}
