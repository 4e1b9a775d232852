// SPDX-License-Identifier: GPL-2.0-only
/*
 * Candidates that are a BPF object: a generic loader. It does what a scheduler's own skeleton would do: fills the
 * kernel's constants (`__SCX_X` in .rodata), sets the fields that user space sets, loads, attaches tracing programs,
 * and at last the one sched_ext struct_ops map.
 */
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "runner.h"

#define MAX_LINKS 64

static struct bpf_object *obj;
static struct bpf_map *ops_map;
static struct bpf_link *ops_link, *links[MAX_LINKS];
static int nlinks;
static char *verifier_buf;
static char refused[64];	/* the program at which loading ended, by libbpf's own words */

/* the candidate's own record of its exit, if it keeps one */
static struct {
	const volatile uint8_t *volatile base;
	void *mapped;
	size_t mapped_len;
	int kind, code, reason, msg;	/* offsets, -1 none */
	unsigned reason_len, msg_len;
} uei;

static int print(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	char line[2000];
	int n;

	if (level == LIBBPF_DEBUG)
		return 0;
	n = vsnprintf(line, sizeof(line), fmt, ap);
	if (!refused[0] && strstr(line, "': BPF program load failed"))
		sscanf(line, "libbpf: prog '%63[^']'", refused);
	if (n > 0)
		log_put(&log_libbpf, line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1);
	return 0;
}

/* The map behind a data section: libbpf names it after object and section, or just the section. */
static struct bpf_map *map_of_section(const char *section)
{
	struct bpf_map *m;
	size_t want = strlen(section);

	bpf_object__for_each_map(m, obj) {
		const char *n = bpf_map__name(m);
		size_t len = strlen(n);

		if (bpf_map__is_internal(m) && len >= want && !strcmp(n + len - want, section))
			return m;
	}
	return NULL;
}

static int fill_enums(void)
{
	const struct btf *b = bpf_object__btf(obj);
	int filled = 0;

	for (__u32 id = 1; b && id < btf__type_cnt(b); id++) {
		const struct btf_type *t = btf__type_by_id(b, id);
		const char *section;
		struct bpf_map *m;
		size_t size;
		uint8_t *data;

		if (!btf_is_datasec(t))
			continue;
		section = btf__name_by_offset(b, t->name_off);
		if (strncmp(section, ".rodata", 7))
			continue;
		m = map_of_section(section);
		data = m ? bpf_map__initial_value(m, &size) : NULL;
		if (!data)
			continue;
		for (int i = 0; i < (int)btf_vlen(t); i++) {
			const struct btf_var_secinfo *v = &btf_var_secinfos(t)[i];
			const struct btf_type *var = btf__type_by_id(b, v->type);
			const char *name = btf__name_by_offset(b, var->name_off);
			uint64_t value;

			if (strncmp(name, "__SCX_", 6) || v->offset + v->size > size || !kbtf_enum(name + 2, &value))
				continue;
			if (v->size == 8 || v->size == 4) {
				memcpy(data + v->offset, &value, v->size);	/* little endian */
				filled++;
			}
		}
	}
	return filled;
}

static int member_offset(const struct btf *b, const struct btf_type *t, const char *name, unsigned *size)
{
	for (int i = 0; i < (int)btf_vlen(t); i++) {
		const struct btf_member *m = &btf_members(t)[i];

		if (strcmp(btf__name_by_offset(b, m->name_off), name))
			continue;
		if (size) {
			int64_t s = btf__resolve_size(b, m->type);

			*size = s > 0 ? (unsigned)s : 0;
		}
		return (int)(btf_member_bit_offset(t, (__u32)i) / 8);
	}
	return -1;
}

static bool is_ops_type(const char *name)
{
	if (!name)
		return false;
	/* the cid form is another type of the same role; `___x` is a version suffix that libbpf ignores */
	for (const char *const *p = (const char *const[]){ "sched_ext_ops", "sched_ext_ops_cid", NULL }; *p; p++) {
		size_t len = strlen(*p);

		if (!strncmp(name, *p, len) && (!name[len] || !strncmp(name + len, "___", 3)))
			return true;
	}
	return false;
}

/* Finds the one struct_ops map that is a scheduler. */
static int find_ops(struct attach_result *r)
{
	const struct btf *b = bpf_object__btf(obj);
	struct bpf_map *m;
	int schedulers = 0;
	char found[256] = "";

	ops_map = NULL;
	bpf_object__for_each_map(m, obj) {
		const struct btf_type *t;
		const char *name = NULL;
		size_t n = strlen(found);

		if (bpf_map__type(m) != BPF_MAP_TYPE_STRUCT_OPS)
			continue;
		t = btf__type_by_id(b, bpf_map__btf_value_type_id(m));
		if (t)
			name = btf__name_by_offset(b, t->name_off);
		snprintf(found + n, sizeof(found) - n, "%s%s (%s%s)", n ? ", " : "", bpf_map__name(m), name ? name : "?",
			 bpf_map__autocreate(m) ? "" : ", optional");
		if (!is_ops_type(name))
			continue;
		if (!bpf_map__autocreate(m))
			continue;
		schedulers++;
		ops_map = m;
	}
	if (schedulers == 1)
		return 0;
	snprintf(r->detail, sizeof(r->detail), "expected one sched_ext_ops struct_ops map, found %d; struct_ops maps: %s",
		 schedulers, found[0] ? found : "none");
	r->err = EINVAL;
	return -EINVAL;
}

/* The fields of the ops that user space is to fill. */
static void set_ops(struct attach_result *r)
{
	const struct btf *b = bpf_object__btf(obj);
	const struct btf_type *t = btf__type_by_id(b, bpf_map__btf_value_type_id(ops_map));
	size_t size;
	uint8_t *data = bpf_map__initial_value(ops_map, &size);
	unsigned len = 0;
	int at;

	if (!data || !t)
		return;
	at = member_offset(b, t, "name", &len);
	if (at >= 0 && (size_t)at + len <= size)
		snprintf(r->ops, sizeof(r->ops), "%.*s", (int)len, (char *)data + at);
	at = member_offset(b, t, "timeout_ms", &len);
	if (at >= 0 && len == 4 && (size_t)at + 4 <= size) {
		uint32_t v;

		memcpy(&v, data + at, 4);
		/* 0 is the kernel's default of 30 s, which is above any bound */
		if (job.timeout_ms && (!v || v > job.timeout_ms))
			v = (uint32_t)job.timeout_ms;
		memcpy(data + at, &v, 4);
		r->timeout_ms = v;
	}
	at = member_offset(b, t, "hotplug_seq", &len);
	if (at >= 0 && len == 8 && (size_t)at + 8 <= size) {
		uint64_t v = read_u64("/sys/kernel/sched_ext/hotplug_seq", 0);

		memcpy(data + at, &v, 8);
	}
}

static void find_uei(void)
{
	const struct btf *b = bpf_object__btf(obj);

	for (__u32 id = 1; b && id < btf__type_cnt(b); id++) {
		const struct btf_type *t = btf__type_by_id(b, id);
		const char *section;

		if (!btf_is_datasec(t))
			continue;
		section = btf__name_by_offset(b, t->name_off);
		if (strncmp(section, ".data", 5) && strncmp(section, ".bss", 4))
			continue;
		for (int i = 0; i < (int)btf_vlen(t); i++) {
			const struct btf_var_secinfo *v = &btf_var_secinfos(t)[i];
			const struct btf_type *var = btf__type_by_id(b, v->type);
			const struct btf_type *st = btf__type_by_id(b, var->type);
			struct bpf_map *m;
			size_t len;

			if (!st || !btf_is_struct(st) || strcmp(btf__name_by_offset(b, st->name_off), "user_exit_info"))
				continue;
			m = map_of_section(section);
			if (!m || v->offset + v->size > bpf_map__value_size(m))
				continue;
			len = (bpf_map__value_size(m) + 4095) & ~(size_t)4095;
			uei.mapped = mmap(NULL, len, PROT_READ, MAP_SHARED, bpf_map__fd(m), 0);
			if (uei.mapped == MAP_FAILED) {
				uei.mapped = NULL;
				continue;
			}
			uei.mapped_len = len;
			uei.kind = member_offset(b, st, "kind", NULL);
			uei.code = member_offset(b, st, "exit_code", NULL);
			uei.reason = member_offset(b, st, "reason", &uei.reason_len);
			uei.msg = member_offset(b, st, "msg", &uei.msg_len);
			uei.base = (const uint8_t *)uei.mapped + v->offset;
			return;
		}
	}
}

static void copy_text(char *to, size_t size, const volatile uint8_t *base, int at, unsigned len)
{
	size_t i;

	for (i = 0; at >= 0 && i < size - 1 && i < len && base[(size_t)at + i]; i++)
		to[i] = (char)base[(size_t)at + i];
	to[i] = 0;
}

bool object_uei(struct uei_copy *u)
{
	const volatile uint8_t *base = uei.base;

	memset(u, 0, sizeof(*u));
	if (!base || uei.kind < 0)
		return false;
	memcpy(&u->kind, (const void *)(base + uei.kind), 4);
	if (uei.code >= 0)
		memcpy(&u->code, (const void *)(base + uei.code), 8);
	copy_text(u->reason, sizeof(u->reason), base, uei.reason, uei.reason_len);
	copy_text(u->message, sizeof(u->message), base, uei.msg, uei.msg_len);
	return true;
}

/*
 * One `load` event for each program that went through the verifier. After a failure that is only the refused one:
 * libbpf has unloaded the others by then, and with them what the verifier counted.
 */
static void report_programs(bool loaded)
{
	struct bpf_program *p;

	bpf_object__for_each_program(p, obj) {
		struct bpf_prog_info info;
		__u32 len = sizeof(info);
		int fd = bpf_program__fd(p);
		const char *type = libbpf_bpf_prog_type_str(bpf_program__type(p));
		struct json j;

		if (!bpf_program__autoload(p))
			continue;
		if (loaded ? fd < 0 : strcmp(bpf_program__name(p), refused) != 0)
			continue;
		memset(&info, 0, sizeof(info));
		if (fd >= 0)
			bpf_prog_get_info_by_fd(fd, &info, &len);
		ev_begin(&j, "load");
		ev_str(&j, "prog", bpf_program__name(p));
		ev_str(&j, "section", bpf_program__section_name(p));
		ev_str(&j, "type", type);
		ev_u64(&j, "insns", bpf_program__insn_cnt(p));
		ev_u64(&j, "verified", info.verified_insns);
		ev_bool(&j, "ok", fd >= 0);
		ev_send(&j);
	}
}

/* No scheduler writes to the memory of whom it interrupts, which may be the runner. */
static int refuse_writers(struct attach_result *r)
{
	struct bpf_program *p;

	bpf_object__for_each_program(p, obj) {
		const struct bpf_insn *insns = bpf_program__insns(p);

		for (size_t i = 0; i < bpf_program__insn_cnt(p); i++) {
			if (insns[i].code != (BPF_JMP | BPF_CALL) || insns[i].src_reg || insns[i].imm != BPF_FUNC_probe_write_user)
				continue;
			r->err = EPERM;
			snprintf(r->detail, sizeof(r->detail), "program %s calls bpf_probe_write_user(), which no scheduler may",
				 bpf_program__name(p));
			return -EPERM;
		}
	}
	return 0;
}

static int load(struct attach_result *r)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts);
	char path[4096];
	int e, filled;

	libbpf_set_print(print);
	if (!verifier_buf)
		verifier_buf = malloc(LOG_LIMIT_VERIFIER);
	if (!verifier_buf) {
		r->err = ENOMEM;
		return -ENOMEM;
	}
	verifier_buf[0] = 0;
	refused[0] = 0;
	e = kbtf_load();
	if (e) {
		r->err = -e;
		snprintf(r->detail, sizeof(r->detail), "the kernel's BTF cannot be read");
		return e;
	}
	/* level 0 with a buffer: libbpf asks for the log only when a program fails, so a good one is verified once */
	opts.kernel_log_buf = verifier_buf;
	opts.kernel_log_size = LOG_LIMIT_VERIFIER;
	opts.kernel_log_level = 0;
	obj = bpf_object__open_file(job_path(job.args[0], path, sizeof(path)), &opts);
	if (!obj) {
		char text[128];

		r->err = errno;
		libbpf_strerror(-r->err, text, sizeof(text));
		/* libbpf has numbers of its own, of which the system knows no names */
		if (r->err >= __LIBBPF_ERRNO__START)
			r->err = EINVAL;
		snprintf(r->detail, sizeof(r->detail), "libbpf cannot open the object: %s", text);
		return -r->err;
	}
	e = find_ops(r);
	if (e)
		return e;
	e = refuse_writers(r);
	if (e)
		return e;
	filled = fill_enums();
	set_ops(r);
	/* Attached by hand, last. */
	bpf_map__set_autoattach(ops_map, false);
	r->stage = "load";
	e = bpf_object__load(obj);
	report_programs(!e);
	if (e) {
		r->err = -e;
		log_put(&log_verifier, verifier_buf, strnlen(verifier_buf, LOG_LIMIT_VERIFIER));
		if (refused[0])
			snprintf(r->detail, sizeof(r->detail), "program %s was refused: %s", refused, errno_name(e));
		else
			snprintf(r->detail, sizeof(r->detail), "libbpf cannot load the object: %s (%d constants of the kernel filled in)",
				 errno_name(e), filled);
		return e;
	}
#if LIBBPF_MAJOR_VERSION > 1 || LIBBPF_MINOR_VERSION >= 7
	/* so that kfuncs called from the object's other programs (timers, tracers) know whose they are */
	struct bpf_program *p;

	bpf_object__for_each_program(p, obj)
		if (bpf_program__type(p) != BPF_PROG_TYPE_STRUCT_OPS && bpf_program__fd(p) >= 0)
			bpf_program__assoc_struct_ops(p, ops_map, NULL);
#endif
	find_uei();
	return 0;
}

int object_load(void *p)
{
	int e;

	/*
	 * Nobody's scheduler is attached now, so this thread can take its turn with the others: the verifier at a
	 * real-time priority would be a disturbance that the loads then report.
	 */
	set_policy(0, SCHED_OTHER, 0);
	e = load(p);
	set_fifo(0, PRIO_STEPS);
	return e;
}

int object_attach(void *p)
{
	struct attach_result *r = p;
	struct bpf_program *prog;

	bpf_object__for_each_program(prog, obj) {
		struct bpf_link *link;

		if (bpf_program__type(prog) == BPF_PROG_TYPE_STRUCT_OPS || !bpf_program__autoload(prog) ||
		    !bpf_program__autoattach(prog) || nlinks == MAX_LINKS)
			continue;
		link = bpf_program__attach(prog);
		if (link) {
			links[nlinks++] = link;
			continue;
		}
		if (errno == EOPNOTSUPP)
			continue;	/* a kind that is not attached (syscall, timer callbacks) */
		r->err = errno;
		snprintf(r->detail, sizeof(r->detail), "program %s (%s) cannot be attached: %s", bpf_program__name(prog),
			 bpf_program__section_name(prog), errno_name(errno));
		return -r->err;
	}
	ops_link = bpf_map__attach_struct_ops(ops_map);
	if (!ops_link) {
		r->err = errno;
		snprintf(r->detail, sizeof(r->detail), "the kernel refused the scheduler: %s", errno_name(errno));
		return -r->err;
	}
	return 0;
}

int object_detach(void *unused)
{
	(void)unused;
	if (ops_link)
		bpf_link__destroy(ops_link);
	ops_link = NULL;
	return 0;
}

static int close_all(void *unused)
{
	(void)unused;
	object_detach(NULL);
	while (nlinks)
		bpf_link__destroy(links[--nlinks]);
	bpf_object__close(obj);
	obj = NULL;
	return 0;
}

void object_close(void)
{
	int result;

	/* The monitor may be reading the old mapping just now, so it goes one close later. */
	static void *old;
	static size_t old_len;

	if (old)
		munmap(old, old_len);
	uei.base = NULL;
	old = uei.mapped;
	old_len = uei.mapped_len;
	uei.mapped = NULL;
	if (obj)
		pool_call(close_all, NULL, 10000, &result);
}
