/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A BPF object with one scheduler in it: what the guest's runner and a host's program do alike, since what is loaded
 * on a host must be what was judged. Each tells the reasons in its own way, so errors are -errno and a text.
 */
#ifndef TESTBED_LOADER_H
#define TESTBED_LOADER_H

#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOADER_MAX_LINKS 64

struct loader {
	struct bpf_object *obj;
	struct bpf_map *ops;		/* the scheduler */
	struct bpf_link *ops_link, *links[LOADER_MAX_LINKS];
	int nlinks;
};

struct loader_text { char *to; size_t size; };

/*
 * Opens the object and finds its scheduler, of which there must be one. The verifier's words come into `verifier` when
 * it refuses a program: a good one is verified once. What was opened before a failure is closed by loader_close().
 */
int loader_open(struct loader *l, const char *path, char *verifier, size_t size, struct loader_text why);
/* -EPERM if a program writes to the memory of whom it interrupts: no scheduler does. */
int loader_refuse_writers(const struct loader *l, struct loader_text why);
/* Fills the kernel's constants, `__SCX_X` in .rodata, with what `find` says of SCX_X; returns how many. */
int loader_fill(struct loader *l, bool (*find)(const char *name, uint64_t *value));
/* Length of a field of the ops in bytes and where it begins; -errno if it has none or another length than `want` (0: any). */
int loader_field(const struct loader *l, const char *name, size_t want, uint8_t **at);
/* Attaches the tracing programs and at last the scheduler. */
int loader_attach(struct loader *l, struct loader_text why);
/* Takes the scheduler back; the object stays loaded. */
void loader_detach(struct loader *l);
void loader_close(struct loader *l);

/* Offset of a struct's member in bytes and its size, -1 if it has none of that name. */
int btf_member_at(const struct btf *b, const struct btf_type *t, const char *name, size_t *size);
/* The map behind a data section. */
struct bpf_map *loader_section(const struct loader *l, const char *section);

#endif
