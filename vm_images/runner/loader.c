// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "loader.h"

#define say(why, ...) snprintf((why).to, (why).size, __VA_ARGS__)

static const char *name_of(int err)
{
	const char *n = strerrorname_np(err < 0 ? -err : err);

	return n ? n : "unknown error";
}

int btf_member_at(const struct btf *b, const struct btf_type *t, const char *name, size_t *size)
{
	for (int i = 0; i < (int)btf_vlen(t); i++) {
		const struct btf_member *m = &btf_members(t)[i];
		int64_t s;

		if (strcmp(btf__name_by_offset(b, m->name_off), name))
			continue;
		s = btf__resolve_size(b, m->type);
		*size = s > 0 ? (size_t)s : 0;
		return (int)(btf_member_bit_offset(t, (__u32)i) / 8);
	}
	*size = 0;
	return -1;
}

/* libbpf names it after object and section, or just the section. */
struct bpf_map *loader_section(const struct loader *l, const char *section)
{
	struct bpf_map *m;
	size_t want = strlen(section);

	bpf_object__for_each_map(m, l->obj) {
		const char *n = bpf_map__name(m);
		size_t len = strlen(n);

		if (bpf_map__is_internal(m) && len >= want && !strcmp(n + len - want, section))
			return m;
	}
	return NULL;
}

static bool is_ops_type(const char *name)
{
	/* the cid form is another type of the same role; `___x` is a version suffix that libbpf ignores */
	static const char *const types[] = { "sched_ext_ops", "sched_ext_ops_cid" };

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		size_t len = strlen(types[i]);

		if (!strncmp(name, types[i], len) && (!name[len] || !strncmp(name + len, "___", 3)))
			return true;
	}
	return false;
}

static int find_ops(struct loader *l, struct loader_text why)
{
	const struct btf *b = bpf_object__btf(l->obj);
	struct bpf_map *m;
	int schedulers = 0;
	char found[256] = "";

	bpf_object__for_each_map(m, l->obj) {
		const struct btf_type *t;
		const char *name = "?";
		size_t n = strlen(found);

		if (bpf_map__type(m) != BPF_MAP_TYPE_STRUCT_OPS)
			continue;
		t = btf__type_by_id(b, bpf_map__btf_value_type_id(m));
		if (t)
			name = btf__name_by_offset(b, t->name_off);
		snprintf(found + n, sizeof(found) - n, "%s%s (%s%s)", n ? ", " : "", bpf_map__name(m), name,
			 bpf_map__autocreate(m) ? "" : ", optional");
		if (!is_ops_type(name) || !bpf_map__autocreate(m))
			continue;
		schedulers++;
		l->ops = m;
	}
	if (schedulers == 1)
		return 0;
	say(why, "expected one sched_ext_ops struct_ops map, found %d; struct_ops maps: %s", schedulers,
	    found[0] ? found : "none");
	return -EINVAL;
}

int loader_open(struct loader *l, const char *path, char *verifier, size_t size, struct loader_text why)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .kernel_log_buf = verifier, .kernel_log_size = size);
	char text[128];
	int e;

	memset(l, 0, sizeof(*l));
	verifier[0] = 0;
	l->obj = bpf_object__open_file(path, &opts);
	if (!l->obj) {
		e = errno;
		libbpf_strerror(-e, text, sizeof(text));
		say(why, "libbpf cannot open the object: %s", text);
		/* libbpf has numbers of its own, of which the system knows no names */
		return e > 0 && e < __LIBBPF_ERRNO__START ? -e : -EINVAL;
	}
	e = find_ops(l, why);
	if (e)
		return e;
	bpf_map__set_autoattach(l->ops, false);	/* it is attached by hand, last */
	return 0;
}

int loader_refuse_writers(const struct loader *l, struct loader_text why)
{
	struct bpf_program *p;

	bpf_object__for_each_program(p, l->obj) {
		const struct bpf_insn *insns = bpf_program__insns(p);

		for (size_t i = 0; i < bpf_program__insn_cnt(p); i++) {
			if (insns[i].code != (BPF_JMP | BPF_CALL) || insns[i].src_reg || insns[i].imm != BPF_FUNC_probe_write_user)
				continue;
			say(why, "program %s calls bpf_probe_write_user(), which no scheduler may", bpf_program__name(p));
			return -EPERM;
		}
	}
	return 0;
}

int loader_fill(struct loader *l, bool (*find)(const char *name, uint64_t *value))
{
	const struct btf *b = bpf_object__btf(l->obj);
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
		m = loader_section(l, section);
		data = m ? bpf_map__initial_value(m, &size) : NULL;
		if (!data)
			continue;
		for (int i = 0; i < (int)btf_vlen(t); i++) {
			const struct btf_var_secinfo *v = &btf_var_secinfos(t)[i];
			const struct btf_type *var = btf__type_by_id(b, v->type);
			const char *name = btf__name_by_offset(b, var->name_off);
			uint64_t value;

			if (strncmp(name, "__SCX_", 6) || v->offset + v->size > size || (v->size != 4 && v->size != 8) ||
			    !find(name + 2, &value))
				continue;
			memcpy(data + v->offset, &value, v->size);	/* little endian */
			filled++;
		}
	}
	return filled;
}

int loader_field(const struct loader *l, const char *name, size_t want, uint8_t **at)
{
	const struct btf *b = bpf_object__btf(l->obj);
	const struct btf_type *t = btf__type_by_id(b, bpf_map__btf_value_type_id(l->ops));
	size_t size, len;
	uint8_t *data = bpf_map__initial_value(l->ops, &size);
	int offset;

	if (!t || !data)
		return -EINVAL;
	offset = btf_member_at(b, t, name, &len);
	if (offset < 0)
		return -ENOENT;
	if (!len || (want && len != want) || (size_t)offset + len > size)
		return -EINVAL;
	*at = data + offset;
	return (int)len;
}

int loader_attach(struct loader *l, struct loader_text why)
{
	struct bpf_program *prog;

	bpf_object__for_each_program(prog, l->obj) {
		struct bpf_link *link;
		int e;

		if (bpf_program__type(prog) == BPF_PROG_TYPE_STRUCT_OPS || !bpf_program__autoload(prog) ||
		    !bpf_program__autoattach(prog) || l->nlinks == LOADER_MAX_LINKS)
			continue;
		link = bpf_program__attach(prog);
		if (link) {
			l->links[l->nlinks++] = link;
			continue;
		}
		e = errno;
		if (e == EOPNOTSUPP)
			continue;	/* a kind that is not attached (syscall, timer callbacks) */
		say(why, "program %s (%s) cannot be attached: %s", bpf_program__name(prog), bpf_program__section_name(prog),
		    name_of(e));
		return -e;
	}
	l->ops_link = bpf_map__attach_struct_ops(l->ops);
	if (!l->ops_link) {
		int e = errno;

		say(why, "the kernel refused the scheduler: %s", name_of(e));
		return -e;
	}
	return 0;
}

void loader_detach(struct loader *l)
{
	if (l->ops_link)
		bpf_link__destroy(l->ops_link);
	l->ops_link = NULL;
}

void loader_close(struct loader *l)
{
	loader_detach(l);
	while (l->nlinks)
		bpf_link__destroy(l->links[--l->nlinks]);
	if (l->obj)
		bpf_object__close(l->obj);
	l->obj = NULL;
}
