// SPDX-License-Identifier: GPL-2.0-only
/* Enumerators of the running kernel. They are what a scheduler's constants are filled from, and name its exits. */
#include <bpf/btf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runner.h"

static struct { char *name; uint64_t value; } *known;
static int known_n, known_max;
/* kinds of exit apart and in static memory: the monitor looks here */
static struct { char name[48]; uint32_t value; } kinds[64];
static int kinds_n;
static bool loaded;

static void note(const char *name, uint64_t value)
{
	if (strncmp(name, "SCX_", 4))
		return;
	if (known_n == known_max) {
		known_max = known_max ? known_max * 2 : 256;
		known = realloc(known, (size_t)known_max * sizeof(*known));
		if (!known)
			die("out of memory");
	}
	known[known_n].name = strdup(name);
	known[known_n++].value = value;
}

int kbtf_load(void)
{
	struct btf *b;
	__u32 n;

	if (loaded)
		return 0;
	b = btf__load_vmlinux_btf();
	if (!b)
		return -errno;
	n = btf__type_cnt(b);
	for (__u32 id = 1; id < n; id++) {
		const struct btf_type *t = btf__type_by_id(b, id);
		const char *tn;

		if (btf_is_enum(t)) {
			for (int i = 0; i < (int)btf_vlen(t); i++)
				note(btf__name_by_offset(b, btf_enum(t)[i].name_off),
				     /* sign matters only for enums that say so */
				     btf_kflag(t) ? (uint64_t)(int64_t)btf_enum(t)[i].val : (uint32_t)btf_enum(t)[i].val);
		} else if (btf_is_enum64(t)) {
			for (int i = 0; i < (int)btf_vlen(t); i++)
				note(btf__name_by_offset(b, btf_enum64(t)[i].name_off), btf_enum64_value(&btf_enum64(t)[i]));
		} else {
			continue;
		}
		tn = btf__name_by_offset(b, t->name_off);
		if (strcmp(tn, "scx_exit_kind") || !btf_is_enum(t))
			continue;
		kinds_n = 0;
		for (int i = 0; i < (int)btf_vlen(t) && kinds_n < 64; i++) {
			strncpy(kinds[kinds_n].name, btf__name_by_offset(b, btf_enum(t)[i].name_off), 47);
			kinds[kinds_n++].value = (uint32_t)btf_enum(t)[i].val;
		}
	}
	btf__free(b);
	loaded = true;
	return 0;
}

bool kbtf_enum(const char *name, uint64_t *value)
{
	for (int i = 0; i < known_n; i++) {
		if (!strcmp(known[i].name, name)) {
			*value = known[i].value;
			return true;
		}
	}
	return false;
}

const char *kbtf_exit_kind(uint32_t kind)
{
	for (int i = 0; i < kinds_n; i++)
		if (kinds[i].value == kind)
			return kinds[i].name;
	return "";
}

bool kbtf_exit_kind_value(const char *name, uint32_t *kind)
{
	for (int i = 0; i < kinds_n; i++) {
		if (!strcmp(kinds[i].name, name)) {
			*kind = kinds[i].value;
			return true;
		}
	}
	return false;
}
