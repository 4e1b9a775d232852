// SPDX-License-Identifier: GPL-2.0-only
/*
 * Debian 13's libelf.a (elfutils 0.192) refers to two functions of elfutils' internal libeu, which no package has as a
 * static library. They begin and end a search tree that only elf_getdata_rawchunk() fills, and libbpf never calls that.
 * Weak, so that a complete libelf.a comes before them.
 */
#include <search.h>	/* tdestroy: a GNU extension */

struct eu_search_tree { void *root; };

__attribute__((weak)) void eu_search_tree_init(struct eu_search_tree *t);
__attribute__((weak)) void eu_search_tree_fini(struct eu_search_tree *t, void (*free_node)(void *));

void eu_search_tree_init(struct eu_search_tree *t)
{
	t->root = 0;
}

void eu_search_tree_fini(struct eu_search_tree *t, void (*free_node)(void *))
{
	tdestroy(t->root, free_node);
}
