// SPDX-License-Identifier: GPL-2.0-only
/*
 * Candidates that are a BPF object, loaded as the guest's runner loads them, since that is what was judged: the kernel's
 * constants (`__SCX_X` in .rodata), the fields of the ops that user space sets, tracing programs, and at last the scheduler.
 * Its link is pinned nowhere, so the end of this process, whatever kind it is of, is the end of the scheduler.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "host.h"
#include "loader.h"

#define LOG_SIZE (256 << 10)
#define SWITCH_PARTIAL "SCX_OPS_SWITCH_PARTIAL"

static struct loader loader;
static struct btf *kernel;
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

size_t object_log(const char **text)
{
	*text = said;
	return said_n;
}

static bool kernel_value(const char *name, uint64_t *value)
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

static int open_object(const struct bundle *b, struct loader_text why)
{
	char path[700];

	libbpf_set_print(print);
	said_n = 0;
	bundle_path(b, "candidate.bpf.o", path, sizeof(path));
	return loader_open(&loader, path, verifier, sizeof(verifier), why);
}

/* The bit has had this place since there is sched_ext, but the kernel knows best. */
static uint64_t partial_bit(void)
{
	uint64_t bit;

	return kernel_value(SWITCH_PARTIAL, &bit) ? bit : 1 << 3;
}

int object_is_partial(const struct bundle *b)
{
	char detail[256];
	uint64_t flags = 0;
	uint8_t *at;
	int e = open_object(b, (struct loader_text){ detail, sizeof(detail) });

	if (!e && loader_field(&loader, "flags", 8, &at) == 8)
		memcpy(&flags, at, 8);
	loader_close(&loader);
	return e ? e : (flags & partial_bit()) != 0;
}

/* What user space sets: the kernel's watchdog is lowered, never raised, and a partial stage takes only who asks for it. */
static void set_ops(struct attach *a)
{
	uint64_t flags, seq = read_u64(SCX_DIR "/hotplug_seq", 0);
	uint8_t *at;
	int len = loader_field(&loader, "name", 0, &at);

	if (len > 0)
		snprintf(a->ops, sizeof(a->ops), "%.*s", len, (char *)at);
	if (loader_field(&loader, "timeout_ms", 4, &at) == 4) {
		memcpy(&a->timeout_ms, at, 4);
		if (!a->timeout_ms || a->timeout_ms > a->watchdog_ms)	/* 0 is the kernel's default of 30 s */
			a->timeout_ms = (uint32_t)a->watchdog_ms;
		memcpy(at, &a->timeout_ms, 4);
	}
	if (loader_field(&loader, "hotplug_seq", 8, &at) == 8)
		memcpy(at, &seq, 8);
	if (a->partial && loader_field(&loader, "flags", 8, &at) == 8) {
		memcpy(&flags, at, 8);
		flags |= partial_bit();
		memcpy(at, &flags, 8);
	}
}

static int load(struct attach *a)
{
	struct loader_text why = { a->detail, sizeof(a->detail) };
	int e;

	a->stage = "open";
	e = open_object(a->bundle, why);
	if (!e)
		e = loader_refuse_writers(&loader, why);
	if (e) {
		a->err = -e;
		return e;
	}
	kernel = btf__load_vmlinux_btf();
	loader_fill(&loader, kernel_value);
	set_ops(a);
	btf__free(kernel);
	kernel = NULL;
	a->stage = "load";
	e = bpf_object__load(loader.obj);
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
	int e;

	a->stage = "attach";
	e = loader_attach(&loader, (struct loader_text){ a->detail, sizeof(a->detail) });
	a->err = -e;
	return e;
}

int object_detach(void *unused)
{
	(void)unused;
	loader_detach(&loader);
	return 0;
}

int object_close(void *unused)
{
	(void)unused;
	loader_close(&loader);
	return 0;
}
