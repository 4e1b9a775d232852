// SPDX-License-Identifier: GPL-2.0-only
/*
 * Candidates that are a BPF object: a generic loader. It does what a scheduler's own skeleton would do: fills the
 * kernel's constants (`__SCX_X` in .rodata), sets the fields that user space sets, loads, attaches tracing programs,
 * and at last the one sched_ext struct_ops map.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "loader.h"
#include "runner.h"

static struct loader loader;
static char *verifier_buf;
static char refused[64];	/* the program at which loading ended, by libbpf's own words */

/* the candidate's own record of its exit, if it keeps one */
static struct {
	const volatile uint8_t *volatile base;
	void *mapped;
	size_t mapped_len;
	int kind, code, reason, msg;	/* offsets, -1 none */
	size_t reason_len, msg_len;
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

/* The fields of the ops that user space is to fill. */
static void set_ops(struct attach_result *r)
{
	uint64_t seq = read_u64("/sys/kernel/sched_ext/hotplug_seq", 0);
	uint8_t *at;
	int len = loader_field(&loader, "name", 0, &at);

	if (len > 0)
		snprintf(r->ops, sizeof(r->ops), "%.*s", len, (char *)at);
	if (loader_field(&loader, "timeout_ms", 4, &at) == 4) {
		memcpy(&r->timeout_ms, at, 4);
		/* 0 is the kernel's default of 30 s, which is above any bound */
		if (job.timeout_ms && (!r->timeout_ms || r->timeout_ms > job.timeout_ms))
			r->timeout_ms = (uint32_t)job.timeout_ms;
		memcpy(at, &r->timeout_ms, 4);
	}
	if (loader_field(&loader, "hotplug_seq", 8, &at) == 8)
		memcpy(at, &seq, 8);
}

static void find_uei(void)
{
	const struct btf *b = bpf_object__btf(loader.obj);

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
			size_t len, unused;

			if (!st || !btf_is_struct(st) || strcmp(btf__name_by_offset(b, st->name_off), "user_exit_info"))
				continue;
			m = loader_section(&loader, section);
			if (!m || v->offset + v->size > bpf_map__value_size(m))
				continue;
			len = (bpf_map__value_size(m) + 4095) & ~(size_t)4095;
			uei.mapped = mmap(NULL, len, PROT_READ, MAP_SHARED, bpf_map__fd(m), 0);
			if (uei.mapped == MAP_FAILED) {
				uei.mapped = NULL;
				continue;
			}
			uei.mapped_len = len;
			uei.kind = btf_member_at(b, st, "kind", &unused);
			uei.code = btf_member_at(b, st, "exit_code", &unused);
			uei.reason = btf_member_at(b, st, "reason", &uei.reason_len);
			uei.msg = btf_member_at(b, st, "msg", &uei.msg_len);
			uei.base = (const uint8_t *)uei.mapped + v->offset;
			return;
		}
	}
}

static void copy_text(char *to, size_t size, const volatile uint8_t *base, int at, size_t len)
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

	bpf_object__for_each_program(p, loader.obj) {
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

static int load(struct attach_result *r)
{
	struct loader_text why = { r->detail, sizeof(r->detail) };
	char path[4096];
	int e, filled;

	libbpf_set_print(print);
	if (!verifier_buf)
		verifier_buf = malloc(LOG_LIMIT_VERIFIER);
	if (!verifier_buf) {
		r->err = ENOMEM;
		return -ENOMEM;
	}
	refused[0] = 0;
	e = kbtf_load();
	if (e) {
		r->err = -e;
		snprintf(r->detail, sizeof(r->detail), "the kernel's BTF cannot be read");
		return e;
	}
	e = loader_open(&loader, job_path(job.args[0], path, sizeof(path)), verifier_buf, LOG_LIMIT_VERIFIER, why);
	if (!e)
		e = loader_refuse_writers(&loader, why);
	if (e) {
		r->err = -e;
		return e;
	}
	filled = loader_fill(&loader, kbtf_enum);
	set_ops(r);
	r->stage = "load";
	e = bpf_object__load(loader.obj);
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
	int e = loader_attach(&loader, (struct loader_text){ r->detail, sizeof(r->detail) });

	r->err = -e;
	return e;
}

int object_detach(void *unused)
{
	(void)unused;
	loader_detach(&loader);
	return 0;
}

static int close_all(void *unused)
{
	(void)unused;
	loader_close(&loader);
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
	if (loader.obj)
		pool_call(close_all, NULL, 10000, &result);
}
