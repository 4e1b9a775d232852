// SPDX-License-Identifier: GPL-2.0-only
/*
 * Candidates that are a BPF object, loaded as the guest's runner loads them, since that is what was judged: the kernel's
 * constants (`__SCX_X` in .rodata), the fields of the ops that user space sets, tracing programs, and at last the scheduler.
 * Its link is pinned nowhere, so the end of this process, whatever kind it is of, is the end of the scheduler.
 */
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"

#define MAX_LINKS 64
#define LOG_SIZE (256 << 10)
#define SWITCH_PARTIAL "SCX_OPS_SWITCH_PARTIAL"

static struct bpf_object *obj;
static struct bpf_map *ops_map;
static struct bpf_link *ops_link, *links[MAX_LINKS];
static int nlinks;
static char said[LOG_SIZE], verifier[LOG_SIZE];
static size_t said_n;

static int print(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	size_t room = sizeof(said) - said_n;
	int n;

	if (level == LIBBPF_DEBUG || room < 2)
		return 0;
	n = vsnprintf(said + said_n, room, fmt, ap);
	if (n > 0)
		said_n += (size_t)n < room ? (size_t)n : room - 1;
	return 0;
}

size_t loader_log(const char **text)
{
	*text = said;
	return said_n;
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

static bool kernel_value(const struct btf *kernel, const char *name, uint64_t *value)
{
	for (__u32 id = 1; kernel && id < btf__type_cnt(kernel); id++) {
		const struct btf_type *t = btf__type_by_id(kernel, id);

		for (int i = 0; (btf_is_enum(t) || btf_is_enum64(t)) && i < (int)btf_vlen(t); i++) {
			bool wide = btf_is_enum64(t);
			__u32 at = wide ? btf_enum64(t)[i].name_off : btf_enum(t)[i].name_off;

			if (strcmp(btf__name_by_offset(kernel, at), name))
				continue;
			if (wide)
				*value = btf_enum64_value(&btf_enum64(t)[i]);
			else
				*value = btf_kflag(t) ? (uint64_t)(int64_t)btf_enum(t)[i].val : (uint32_t)btf_enum(t)[i].val;
			return true;
		}
	}
	return false;
}

static void fill_enums(const struct btf *kernel)
{
	const struct btf *b = bpf_object__btf(obj);

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

			if (strncmp(name, "__SCX_", 6) || v->offset + v->size > size || (v->size != 4 && v->size != 8) ||
			    !kernel_value(kernel, name + 2, &value))
				continue;
			memcpy(data + v->offset, &value, v->size);	/* little endian */
		}
	}
}

static int member(const char *name, size_t want, uint8_t **at)
{
	const struct btf *b = bpf_object__btf(obj);
	const struct btf_type *t = btf__type_by_id(b, bpf_map__btf_value_type_id(ops_map));
	size_t size;
	uint8_t *data = bpf_map__initial_value(ops_map, &size);

	for (int i = 0; t && data && i < (int)btf_vlen(t); i++) {
		const struct btf_member *m = &btf_members(t)[i];
		size_t offset = btf_member_bit_offset(t, (__u32)i) / 8;
		int64_t len = btf__resolve_size(b, m->type);

		if (strcmp(btf__name_by_offset(b, m->name_off), name))
			continue;
		if (len <= 0 || (want && (size_t)len != want) || offset + (size_t)len > size)
			return -EINVAL;
		*at = data + offset;
		return (int)len;
	}
	return -ENOENT;
}

static bool is_ops_type(const char *name)
{
	static const char *const types[] = { "sched_ext_ops", "sched_ext_ops_cid" };

	for (size_t i = 0; name && i < sizeof(types) / sizeof(types[0]); i++) {
		size_t len = strlen(types[i]);

		if (!strncmp(name, types[i], len) && (!name[len] || !strncmp(name + len, "___", 3)))
			return true;
	}
	return false;
}

static int find_ops(char *detail, size_t n)
{
	const struct btf *b = bpf_object__btf(obj);
	struct bpf_map *m;
	int schedulers = 0;

	ops_map = NULL;
	bpf_object__for_each_map(m, obj) {
		const struct btf_type *t;

		if (bpf_map__type(m) != BPF_MAP_TYPE_STRUCT_OPS || !bpf_map__autocreate(m))
			continue;
		t = btf__type_by_id(b, bpf_map__btf_value_type_id(m));
		if (!t || !is_ops_type(btf__name_by_offset(b, t->name_off)))
			continue;
		schedulers++;
		ops_map = m;
	}
	if (schedulers == 1)
		return 0;
	snprintf(detail, n, "expected one sched_ext_ops struct_ops map, found %d", schedulers);
	return -EINVAL;
}

static int open_object(const struct bundle *b, char *detail, size_t n)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .kernel_log_buf = verifier, .kernel_log_size = sizeof(verifier));
	char path[700];

	libbpf_set_print(print);
	said_n = 0;
	bundle_path(b, "candidate.bpf.o", path, sizeof(path));
	obj = bpf_object__open_file(path, &opts);
	if (!obj) {
		int e = errno;

		snprintf(detail, n, "libbpf can't open the object");
		return e > 0 && e < __LIBBPF_ERRNO__START ? -e : -EINVAL;
	}
	return find_ops(detail, n);
}

/* The bit has had this place since there is sched_ext, but the kernel knows best. */
static uint64_t partial_bit(const struct btf *kernel)
{
	uint64_t bit;

	return kernel_value(kernel, SWITCH_PARTIAL, &bit) ? bit : 1 << 3;
}

int object_is_partial(const struct bundle *b)
{
	char detail[256];
	uint64_t flags = 0;
	uint8_t *at;
	int e = open_object(b, detail, sizeof(detail));

	if (!e && member("flags", 8, &at) == 8)
		memcpy(&flags, at, 8);
	if (obj)
		bpf_object__close(obj);
	obj = NULL;
	return e ? e : (flags & partial_bit(NULL)) != 0;
}

/* No scheduler writes to the memory of whom it interrupts. */
static int refuse_writers(struct attach *a)
{
	struct bpf_program *p;

	bpf_object__for_each_program(p, obj) {
		const struct bpf_insn *insns = bpf_program__insns(p);

		for (size_t i = 0; i < bpf_program__insn_cnt(p); i++) {
			if (insns[i].code != (BPF_JMP | BPF_CALL) || insns[i].src_reg || insns[i].imm != BPF_FUNC_probe_write_user)
				continue;
			snprintf(a->detail, sizeof(a->detail), "program %s calls bpf_probe_write_user(), which no scheduler may",
				 bpf_program__name(p));
			return -EPERM;
		}
	}
	return 0;
}

/* What user space sets: the kernel's watchdog is lowered, never raised, and a partial stage takes only who asks for it. */
static void set_ops(struct attach *a, const struct btf *kernel)
{
	uint64_t flags, seq = read_u64(SCX_DIR "/hotplug_seq", 0);
	uint8_t *at;
	int len = member("name", 0, &at);

	if (len > 0)
		snprintf(a->ops, sizeof(a->ops), "%.*s", len, (char *)at);
	if (member("timeout_ms", 4, &at) == 4) {
		memcpy(&a->timeout_ms, at, 4);
		if (!a->timeout_ms || a->timeout_ms > a->watchdog_ms)	/* 0 is the kernel's default of 30 s */
			a->timeout_ms = (uint32_t)a->watchdog_ms;
		memcpy(at, &a->timeout_ms, 4);
	}
	if (member("hotplug_seq", 8, &at) == 8)
		memcpy(at, &seq, 8);
	if (a->partial && member("flags", 8, &at) == 8) {
		memcpy(&flags, at, 8);
		flags |= partial_bit(kernel);
		memcpy(at, &flags, 8);
	}
}

static int load(struct attach *a)
{
	struct btf *kernel;
	int e;

	a->stage = "open";
	e = open_object(a->bundle, a->detail, sizeof(a->detail));
	if (!e)
		e = refuse_writers(a);
	if (e) {
		a->err = -e;
		return e;
	}
	kernel = btf__load_vmlinux_btf();
	fill_enums(kernel);
	set_ops(a, kernel);
	btf__free(kernel);
	bpf_map__set_autoattach(ops_map, false);
	a->stage = "load";
	e = bpf_object__load(obj);
	if (e) {
		size_t n = strnlen(verifier, sizeof(verifier));

		a->err = -e;
		snprintf(a->detail, sizeof(a->detail), "the kernel does not load the object: %s", strerror(-e));
		if (n > sizeof(said) - said_n)
			n = sizeof(said) - said_n;
		memcpy(said + said_n, verifier, n);
		said_n += n;
		return e;
	}
	return 0;
}

/* Nobody's scheduler is attached now, and the verifier at a real-time priority would be in everybody's way. */
int object_load(void *p)
{
	int e;

	set_fifo(0);
	e = load(p);
	set_fifo(PRIORITY);
	return e;
}

int object_attach(void *p)
{
	struct attach *a = p;
	struct bpf_program *prog;

	a->stage = "attach";
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
		a->err = errno;
		snprintf(a->detail, sizeof(a->detail), "program %s (%s) can't be attached: %s", bpf_program__name(prog),
			 bpf_program__section_name(prog), strerror(errno));
		return -a->err;
	}
	ops_link = bpf_map__attach_struct_ops(ops_map);
	if (!ops_link) {
		a->err = errno;
		snprintf(a->detail, sizeof(a->detail), "the kernel refused the scheduler: %s", strerror(errno));
		return -a->err;
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

int object_close(void *unused)
{
	object_detach(unused);
	while (nlinks)
		bpf_link__destroy(links[--nlinks]);
	bpf_object__close(obj);
	obj = NULL;
	return 0;
}
