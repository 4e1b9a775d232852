// SPDX-License-Identifier: GPL-2.0-only
/*
 * The oracle: what the kernel's tracepoints say about who waited and who ran, beside what loads say of themselves. Its
 * programs (oracle.bpf.c) are loaded before the machine is saved, and count in memory that is mapped here, so that
 * looking is no system call. Neither loads nor a candidate have a way to it: they hold no descriptor of ours, and to get
 * one by number takes CAP_SYS_ADMIN. What is found to be other than it was left is `tampered`.
 */
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "oracle.h"
#include "runner.h"

#define TAIL 1000		/* records of a run that went well */
#define PROGRAMS 16
#define CALLBACKS 64
#define REFUSAL (256u << 10)	/* of the verifier's words, should it have any */
#define NAMED 512		/* tasks that are told by name */
#define MISSED(n) (200 + (n) / 50)	/* switches that may lie between two ways to count them */

_Static_assert(ORACLE_BUCKETS == HIST_BUCKETS, "one histogram");

/* oracle.bpf.o, put into this program by the assembler */
extern const char oracle_object[], oracle_object_end[];
asm(".pushsection .rodata\n"
    ".balign 8\n"
    "oracle_object: .incbin \"oracle.bpf.o\"\n"
    "oracle_object_end:\n"
    ".popsection\n");

static struct {
	struct oracle_task *tasks;
	struct oracle_group *groups;
	struct oracle_cpu *cpus;
	struct oracle_queue *any;
	struct oracle_record *ring;
	uint64_t *head, *switches, *lost;
	uint32_t *frozen, *runner, *ncpus;
} seen;

static struct { struct bpf_link *link; int fd; uint32_t id, link_id; uint64_t calls; } programs[PROGRAMS];
static struct { uint32_t id; uint64_t ns, calls; } callbacks[CALLBACKS];
static int nprograms, ncallbacks, stats_fd = -1;
static bool works, told;
static uint64_t took;
static char why_not[256], *refusal;

static char names[ORACLE_GROUPS][64] = {
	[GROUP_OTHERS] = "@others",
	[GROUP_KTHREADS] = "@kthreads",
	[GROUP_CANDIDATE] = "@candidate",
};
static int next_group = GROUP_FIRST;

/* What there was when the window opened, and once it is closed what was in it; no difference gives `max`. */
static struct oracle_group window[ORACLE_GROUPS];
static uint64_t max_before[ORACLE_GROUPS], wasted_before[ORACLE_CPUS], idle_before[ORACLE_CPUS], switches_before, own_before;

static int note_why(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	if (level == LIBBPF_WARN && !why_not[0])
		vsnprintf(why_not, sizeof(why_not), fmt, ap);
	return 0;
}

/* The programs' memory: one data section, whose variables the object's own BTF places. */
static bool find_memory(struct bpf_object *obj)
{
	static const struct { const char *name; void *to; } wanted[] = {
		{ "tasks", &seen.tasks }, { "groups", &seen.groups }, { "cpus", &seen.cpus }, { "any", &seen.any },
		{ "ring", &seen.ring }, { "head", &seen.head }, { "switches", &seen.switches }, { "lost", &seen.lost },
		{ "frozen", &seen.frozen }, { "runner", &seen.runner }, { "ncpus", &seen.ncpus },
	};
	const struct btf *b = bpf_object__btf(obj);
	struct bpf_map *m;
	uint8_t *data = NULL;
	size_t size, found = 0;

	bpf_object__for_each_map(m, obj)
		if (strstr(bpf_map__name(m), ".bss"))
			data = bpf_map__initial_value(m, &size);
	for (uint32_t id = 1; data && id < btf__type_cnt(b); id++) {
		const struct btf_type *t = btf__type_by_id(b, id);

		if (!btf_is_datasec(t) || strcmp(btf__name_by_offset(b, t->name_off), ".bss"))
			continue;
		for (int i = 0; i < (int)btf_vlen(t); i++) {
			const struct btf_var_secinfo *v = &btf_var_secinfos(t)[i];
			const char *name = btf__name_by_offset(b, btf__type_by_id(b, v->type)->name_off);

			for (size_t k = 0; k < sizeof(wanted) / sizeof(wanted[0]); k++) {
				if (strcmp(name, wanted[k].name))
					continue;
				*(void **)wanted[k].to = data + v->offset;
				found++;
			}
		}
	}
	return found == sizeof(wanted) / sizeof(wanted[0]);
}

static bool program_info(int i, struct bpf_prog_info *info)
{
	uint32_t len = sizeof(*info);

	memset(info, 0, sizeof(*info));
	return !bpf_prog_get_info_by_fd(programs[i].fd, info, &len);
}

static bool attach(struct bpf_object *obj)
{
	struct bpf_program *p;

	bpf_object__for_each_program(p, obj) {
		struct bpf_link_info link;
		struct bpf_prog_info info;
		uint32_t len = sizeof(link);
		int i = nprograms;

		programs[i].link = bpf_program__attach(p);
		if (!programs[i].link) {
			/* without this one the recorder stops a little later, by the runner */
			if (!strcmp(bpf_program__name(p), "on_exit"))
				continue;
			snprintf(why_not, sizeof(why_not), "%s cannot be attached: %s", bpf_program__name(p), errno_name(errno));
			return false;
		}
		programs[i].fd = bpf_program__fd(p);
		memset(&link, 0, sizeof(link));
		if (!program_info(i, &info) || bpf_link_get_info_by_fd(bpf_link__fd(programs[i].link), &link, &len)) {
			snprintf(why_not, sizeof(why_not), "%s cannot be asked about: %s", bpf_program__name(p), errno_name(errno));
			return false;
		}
		programs[i].id = info.id;
		programs[i].link_id = link.id;
		nprograms++;
	}
	return true;
}

static void load(void)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = "oracle");
	unsigned char online[1024];
	struct bpf_object *obj;

	libbpf_set_print(note_why);
	/* without a level it is filled only when a program is refused */
	refusal = calloc(1, REFUSAL);
	opts.kernel_log_buf = refusal;
	opts.kernel_log_size = refusal ? REFUSAL : 0;
	obj = bpf_object__open_mem(oracle_object, (size_t)(oracle_object_end - oracle_object), &opts);
	if (!obj || bpf_object__load(obj)) {
		if (!why_not[0])
			snprintf(why_not, sizeof(why_not), "the kernel refused it: %s", errno_name(errno));
		return;
	}
	if (!find_memory(obj)) {
		snprintf(why_not, sizeof(why_not), "its memory is not where its BTF says");
		return;
	}
	*seen.runner = (uint32_t)getpid();
	*seen.ncpus = (uint32_t)online_cpus(online, 1024);
	*seen.frozen = FREEZE_TROUBLE;	/* nothing to record before a job */
	works = attach(obj);
}

/* All that takes long; a snapshot pays it once. A kernel that can't do it goes without. */
void oracle_load(void)
{
	uint64_t begun = now_ns();

	load();
	took = now_ns() - begun;
}

static void let_go(void)
{
	while (nprograms)
		bpf_link__destroy(programs[--nprograms].link);
	if (stats_fd >= 0)
		close(stats_fd);
	stats_fd = -1;
	works = false;
}

/* A new job: it begins with nothing counted. */
void oracle_start(void)
{
	struct json j;

	if (works && !job.oracle) {
		let_go();
		snprintf(why_not, sizeof(why_not), "not wanted");
	}
	/* The kernel's statistics make each call of a candidate's programs dearer, and EEVDF has none: only on demand. */
	if (works && job.callbacks && stats_fd < 0)
		stats_fd = bpf_enable_stats(BPF_STATS_RUN_TIME);
	if (works) {
		/* who waits or runs just now goes on doing so; what was counted of them does not matter */
		memset(seen.groups, 0, sizeof(*seen.groups) * ORACLE_GROUPS);
		*seen.head = *seen.lost = 0;
		*seen.frozen = FREEZE_NOT;
	}
	ev_begin(&j, "oracle");
	ev_bool(&j, "ok", works);
	ev_str(&j, "detail", works ? "" : why_not);
	ev_i64(&j, "programs", nprograms);
	ev_u64(&j, "elapsed_ns", took);
	ev_send(&j);
	if (!works && refusal && refusal[0]) {
		size_t n = strnlen(refusal, REFUSAL), last = n < 3000 ? n : 3000;
		struct logsrc l;

		log_init(&l, "runner", LOG_LIMIT);
		log_put(&l, refusal + n - last, last);
	}
	free(refusal);
	refusal = NULL;
}

int oracle_group(const char *name)
{
	if (next_group == ORACLE_GROUPS)
		return GROUP_OTHERS;
	snprintf(names[next_group], sizeof(names[0]), "%s", name);
	return next_group++;
}

void oracle_spawning(int group)
{
	if (works)
		seen.tasks[(uint32_t)gettid() % ORACLE_TASKS].next_group = (unsigned short)group;
}

uint64_t oracle_cputime(pid_t pid)
{
	const volatile struct oracle_task *t;
	uint64_t run, started, now;

	if (!works || pid <= 0)
		return 0;
	t = &seen.tasks[(uint32_t)pid % ORACLE_TASKS];
	if (t->pid != (uint32_t)pid)
		return 0;
	run = t->run_ns;
	started = t->started;
	now = now_ns();
	return run + (started && now > started ? now - started : 0);
}

bool oracle_works(void)
{
	return works;
}

/* ---- figures ---- */

static void head(struct json *j, const char *name, const char *load, const char *in, int cpu, const char *unit)
{
	ev_begin(j, "measure");
	ev_str(j, "name", name);
	ev_str(j, "load", load);
	if (in)
		ev_str(j, "window", in);
	ev_i64(j, "task", -1);
	ev_i64(j, "cpu", cpu);
	ev_str(j, "unit", unit);
}

static void count(const char *name, const char *load, const char *in, const char *unit, uint64_t value, uint64_t samples)
{
	struct json j;

	head(&j, name, load, in, -1, unit);
	ev_u64(&j, "value", value);
	ev_u64(&j, "samples", samples);
	ev_send(&j);
}

static void fraction(const char *name, const char *in, int cpu, uint64_t part, uint64_t whole, uint64_t samples)
{
	uint64_t v = whole ? (uint64_t)((__uint128_t)part * 1000000u / whole) : 0;
	struct json j;

	head(&j, name, in, NULL, cpu, "1");
	ev_micro(&j, "value", v < 1000000 ? v : 1000000);
	ev_u64(&j, "samples", samples);
	ev_send(&j);
}

static void send_group(const char *name, const char *in, const struct oracle_group *g)
{
	static const struct { const char *stat; unsigned pm; } stats[] = {
		{ "max", 0 }, { "p50", 500 }, { "p99", 990 }, { "p99.9", 999 },
	};
	static struct hist h;
	struct json j;

	h.n = g->waits;
	h.max = g->max;
	memcpy(h.b, g->bucket, sizeof(h.b));
	/* of real-time tasks no wait is counted, and that is not the same as none */
	for (size_t i = 0; i < sizeof(stats) / sizeof(stats[0]) && h.n; i++) {
		head(&j, "wait", name, in, -1, "us");
		ev_str(&j, "stat", stats[i].stat);
		ev_milli(&j, "value", stats[i].pm ? hist_quantile(&h, stats[i].pm) : h.max);
		ev_u64(&j, "samples", h.n);
		ev_send(&j);
	}
	count("cputime", name, in, "ns", g->run_ns, g->runs);
	count("runs", name, in, "1", g->runs, 1);
	count("preemptions", name, in, "1", g->preemptions, 1);
	count("migrations", name, in, "1", g->migrations, 1);
}

/*
 * What has begun and not ended yet, added to `to`: of the running their time so far, and of the waiting their wait as far
 * as it has come, if it says something. `which` is a group, or -1 for all.
 */
static void add_running(struct oracle_group *to, int which, bool waits)
{
	uint64_t now = now_ns();

	for (unsigned i = 0; i < ORACLE_TASKS; i++) {
		const volatile struct oracle_task *t = &seen.tasks[i];
		uint64_t started = t->started, since = t->since;
		struct oracle_group *g;

		if ((!started && !since) || t->group >= ORACLE_GROUPS || (which >= 0 && t->group != which))
			continue;
		g = which >= 0 ? to : &to[t->group];
		if (started && now > started)
			g->run_ns += now - started;
		if (!waits || !since || !t->judged || now <= since)
			continue;
		if (now - since <= g->max && now - since <= NSEC_PER_MSEC)
			continue;
		g->waits++;
		g->bucket[hist_bucket(now - since)]++;
		if (now - since > g->max)
			g->max = now - since;
	}
}

static uint64_t queue_time(const volatile struct oracle_queue *q, uint64_t now)
{
	uint64_t word = q->word, begin = word >> 16;

	return q->total + ((word & 0xffff) && now > begin ? now - begin : 0);
}

/* As the programs do it when a CPU's idle time ends, for one that is idle just now. */
static void idle_so_far(unsigned cpu, uint64_t now, uint64_t *idle, uint64_t *wasted)
{
	const volatile struct oracle_cpu *c = &seen.cpus[cpu];
	uint64_t since = c->idle_since, a, o;

	*idle = c->idle_ns;
	*wasted = c->wasted_ns;
	if (!since || now <= since)
		return;
	a = queue_time(seen.any, now) - c->any_at;
	o = queue_time(&c->own, now) - c->own_at;
	if (o > a)
		a = o;
	*idle += now - since;
	*wasted += a < now - since ? a : now - since;
}

static uint64_t own_time(void)
{
	struct bpf_prog_info info;
	uint64_t ns = 0;

	for (int i = 0; i < nprograms; i++)
		if (program_info(i, &info))
			ns += info.run_time_ns;
	return ns;
}

/* Calls fn for each struct_ops program that there is: nothing but a scheduler has them here. */
static void each_callback(void (*fn)(const struct bpf_prog_info *info, void *arg), void *arg)
{
	for (uint32_t id = 0; !bpf_prog_get_next_id(id, &id);) {
		struct bpf_prog_info info;
		uint32_t len = sizeof(info);
		int fd = bpf_prog_get_fd_by_id(id);

		if (fd < 0)
			continue;
		memset(&info, 0, sizeof(info));
		if (!bpf_prog_get_info_by_fd(fd, &info, &len) && info.type == BPF_PROG_TYPE_STRUCT_OPS)
			fn(&info, arg);
		close(fd);
	}
}

static void remember_callback(const struct bpf_prog_info *info, void *arg)
{
	(void)arg;
	if (ncallbacks == CALLBACKS)
		return;
	callbacks[ncallbacks].id = info->id;
	callbacks[ncallbacks].ns = info->run_time_ns;
	callbacks[ncallbacks++].calls = info->run_cnt;
}

struct sum { const char *window; uint64_t ns, calls; };

static void send_callback(const struct bpf_prog_info *info, void *arg)
{
	struct sum *s = arg;
	uint64_t ns = info->run_time_ns, calls = info->run_cnt;
	struct json j;

	for (int i = 0; i < ncallbacks; i++) {
		if (callbacks[i].id != info->id)
			continue;
		ns -= callbacks[i].ns;
		calls -= callbacks[i].calls;
	}
	if (!calls)
		return;
	s->ns += ns;
	s->calls += calls;
	head(&j, "callback", s->window, NULL, -1, "ns");
	ev_str(&j, "stat", info->name);
	ev_milli(&j, "value", (uint64_t)((__uint128_t)ns * 1000 / calls));
	ev_u64(&j, "samples", calls);
	ev_send(&j);
}

static void tampered(const char *what)
{
	struct json j;

	ev_begin(&j, "tampered");
	ev_str(&j, "what", what);
	ev_send(&j);
}

/* Are our programs still there, and do they still run? */
static void check(void)
{
	char text[160];

	for (int i = 0; i < nprograms; i++) {
		struct bpf_link_info link;
		struct bpf_prog_info info;
		uint32_t len = sizeof(link);

		memset(&link, 0, sizeof(link));
		if (program_info(i, &info) && info.id == programs[i].id && info.run_cnt >= programs[i].calls &&
		    !bpf_link_get_info_by_fd(bpf_link__fd(programs[i].link), &link, &len) && link.id == programs[i].link_id &&
		    link.prog_id == programs[i].id) {
			programs[i].calls = info.run_cnt;
			continue;
		}
		snprintf(text, sizeof(text), "program %u of the oracle is not attached as it was", programs[i].id);
		tampered(text);
	}
}

static void recorder(uint32_t from, uint32_t to)
{
	__atomic_compare_exchange_n(seen.frozen, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

void oracle_window_begin(void)
{
	uint64_t now;

	if (!works)
		return;
	if (!told)
		recorder(FREEZE_WINDOW, FREEZE_NOT);
	ncallbacks = 0;
	if (stats_fd >= 0)
		each_callback(remember_callback, NULL);
	for (int g = 0; g < ORACLE_GROUPS; g++) {
		uint64_t max = __atomic_exchange_n(&seen.groups[g].max, 0, __ATOMIC_SEQ_CST);

		if (max > max_before[g])
			max_before[g] = max;
	}
	memcpy(window, seen.groups, sizeof(window));
	add_running(window, -1, false);
	now = now_ns();
	for (unsigned c = 0; c < ORACLE_CPUS; c++)
		idle_so_far(c, now, &idle_before[c], &wasted_before[c]);
	own_before = own_time();
	switches_before = *(volatile uint64_t *)seen.switches;
}

/* What was before becomes what was within: at once, as the telling takes its time. */
void oracle_window_close(void)
{
	uint64_t now;

	if (!works)
		return;
	switches_before = *(volatile uint64_t *)seen.switches - switches_before;
	now = now_ns();
	recorder(FREEZE_NOT, FREEZE_WINDOW);
	for (int g = 0; g < next_group; g++) {
		struct oracle_group *w = &window[g];
		const volatile struct oracle_group *s = &seen.groups[g];

		w->waits = s->waits - w->waits;
		w->max = s->max;
		w->run_ns = s->run_ns - w->run_ns;
		w->runs = s->runs - w->runs;
		w->preemptions = s->preemptions - w->preemptions;
		w->migrations = s->migrations - w->migrations;
		for (int b = 0; b < ORACLE_BUCKETS; b++)
			w->bucket[b] = s->bucket[b] - w->bucket[b];
	}
	add_running(window, -1, true);
	for (unsigned c = 0; c < ORACLE_CPUS; c++) {
		uint64_t idle, wasted;

		idle_so_far(c, now, &idle, &wasted);
		idle_before[c] = idle - idle_before[c];
		wasted_before[c] = wasted - wasted_before[c];
	}
	own_before = own_time() - own_before;
}

static void send_idle(const char *name, uint64_t duration)
{
	unsigned char online[1024];
	uint64_t all_idle = 0, all_wasted = 0;
	int n = online_cpus(online, 1024);

	if (n > ORACLE_CPUS)
		return;		/* not all of them are watched */
	for (unsigned c = 0; c < ORACLE_CPUS; c++) {
		if (!online[c])
			continue;
		all_idle += idle_before[c];
		all_wasted += wasted_before[c];
		fraction("wasted", name, (int)c, wasted_before[c], duration, 1);
	}
	fraction("wasted", name, -1, all_wasted, duration * (uint64_t)n, 1);
	fraction("unused", name, -1, all_idle, duration * (uint64_t)n, 1);
}

static void send_callbacks(const char *name, uint64_t duration)
{
	unsigned char online[1024];
	uint64_t whole = duration * (uint64_t)online_cpus(online, 1024);
	struct sum s = { .window = name };

	each_callback(send_callback, &s);
	fraction("callbacks", name, -1, s.ns, whole, s.calls);
	fraction("oracle", name, -1, own_before, whole, 1);
}

void oracle_window_end(const char *name, uint64_t duration, uint64_t switches)
{
	uint64_t counted = switches_before;
	char text[160];

	if (!works)
		return;
	for (int g = 0; g < next_group; g++)
		if (names[g][0] && (window[g].runs || window[g].waits || window[g].run_ns))
			send_group(names[g], name, &window[g]);
	send_idle(name, duration);
	if (stats_fd >= 0)
		send_callbacks(name, duration);
	check();
	if (counted + MISSED(switches) < switches || switches + MISSED(switches) < counted) {
		snprintf(text, sizeof(text), "the oracle saw %llu of %llu context switches", (unsigned long long)counted,
			 (unsigned long long)switches);
		tampered(text);
	}
}

void oracle_report(int group)
{
	static struct oracle_group g;

	if (!works || group < 0 || group >= ORACLE_GROUPS || !names[group][0])
		return;
	memcpy(&g, &seen.groups[group], sizeof(g));
	if (max_before[group] > g.max)
		g.max = max_before[group];
	add_running(&g, group, true);
	if (g.runs || g.waits || g.run_ns)
		send_group(names[group], NULL, &g);
	/* a load is told of once, at its stop */
	if (group >= GROUP_FIRST)
		names[group][0] = 0;
}

/* ---- the trace ---- */

static struct oracle_record kept[ORACLE_RECORDS];

/* The last `most` records in the order of time; returns how many, and how many there were before. */
static unsigned take_records(unsigned most, uint64_t *before)
{
	uint64_t end = *(volatile uint64_t *)seen.head, n = end < most ? end : most;
	unsigned got = 0;

	for (uint64_t i = end - n; i < end; i++) {
		struct oracle_record r = seen.ring[i % ORACLE_RECORDS];
		unsigned at = got;

		if (r.kind != RECORD_SWITCH && r.kind != RECORD_WAKEUP)
			continue;
		/* nearly sorted: only CPUs at the same time come in another order */
		for (; at && kept[at - 1].t > r.t; at--)
			kept[at] = kept[at - 1];
		kept[at] = r;
		got++;
	}
	*before = end - n;
	return got;
}

static void send_records(unsigned n, uint64_t before)
{
	unsigned char online[1024];
	int cpus = online_cpus(online, 1024);

	for (unsigned i = 0; i < n;) {
		uint64_t base = kept[i].t;
		char text[3800];
		unsigned len = 0;
		struct json j;

		for (; i < n && len < sizeof(text) - 80; i++) {
			const struct oracle_record *r = &kept[i];
			unsigned long long dt = (r->t - base) / 1000;

			if (r->kind == RECORD_SWITCH)
				len += (unsigned)snprintf(text + len, sizeof(text) - len, "%s[%llu,%u,%u,%u,%u]", len ? "," : "[", dt,
							  r->cpu, r->pid, r->left, r->next);
			else
				len += (unsigned)snprintf(text + len, sizeof(text) - len, "%s[%llu,%u,%u]", len ? "," : "[", dt, r->cpu,
							  r->pid);
		}
		text[len++] = ']';
		ev_begin(&j, "trace");
		ev_u64(&j, "base", base);
		ev_i64(&j, "cpus", cpus);
		ev_u64(&j, "lost", before);
		ev_raw(&j, "r", text, len);
		ev_send(&j);
		before = 0;
	}
}

static void comm_of(uint32_t pid, char *to, size_t n)
{
	const struct oracle_task *t = &seen.tasks[pid % ORACLE_TASKS];
	char path[64];

	snprintf(path, sizeof(path), "/proc/%u/comm", pid);
	if (read_file(path, to, n) <= 0)
		snprintf(to, n, "%.16s", t->pid == pid ? t->comm : "");
	to[strcspn(to, "\n")] = 0;
	/* a name may be anything; this one stands in a drawing */
	for (char *p = to; *p; p++)
		if (*p < ' ' || *p > '~' || *p == '"' || *p == '\\')
			*p = '?';
}

static void send_names(unsigned n)
{
	static uint32_t pids[NAMED];
	unsigned known = 0;

	for (unsigned i = 0; i < n; i++) {
		uint32_t two[2] = { kept[i].pid, kept[i].kind == RECORD_SWITCH ? kept[i].next : 0 };

		for (int k = 0; k < 2; k++) {
			unsigned at = 0;

			while (at < known && pids[at] != two[k])
				at++;
			if (two[k] && at == known && known < NAMED)
				pids[known++] = two[k];
		}
	}
	for (unsigned i = 0; i < known;) {
		char text[3800], comm[32];
		unsigned len = 0;
		struct json j;

		for (; i < known && len < sizeof(text) - 80; i++) {
			const struct oracle_task *t = &seen.tasks[pids[i] % ORACLE_TASKS];

			comm_of(pids[i], comm, sizeof(comm));
			len += (unsigned)snprintf(text + len, sizeof(text) - len, "%s[%u,\"%s\",%d]", len ? "," : "[", pids[i], comm,
						  t->pid == pids[i] && t->kthread);
		}
		text[len++] = ']';
		ev_begin(&j, "names");
		ev_raw(&j, "tasks", text, len);
		ev_send(&j);
	}
}

static void tell(unsigned most)
{
	uint64_t before;
	unsigned n;

	told = true;
	*seen.frozen = FREEZE_TROUBLE;
	n = take_records(most, &before);
	send_records(n, before);
	send_names(n);
}

void oracle_watch(bool trouble)
{
	if (works && !told && (trouble || *(volatile uint32_t *)seen.frozen == FREEZE_TROUBLE))
		tell(ORACLE_RECORDS);
}

void oracle_end(void)
{
	if (!works)
		return;
	if (!told)
		tell(TAIL);
	/* at the limit the steps may be in the middle of it */
	for (int g = 0; g < next_group && !job_over(); g++)
		oracle_report(g);
	check();
	if (*seen.lost) {
		struct json j;
		char text[96];

		snprintf(text, sizeof(text), "the oracle lost count of %llu waits\n", (unsigned long long)*seen.lost);
		ev_begin(&j, "log");
		ev_str(&j, "source", "runner");
		ev_u64(&j, "lost", 0);
		ev_str(&j, "text", text);
		ev_send(&j);
	}
}
