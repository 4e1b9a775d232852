// SPDX-License-Identifier: GPL-2.0-only
/*
 * does_not_compile: a misspelt flag and a missing semicolon.
 *
 * Failure mode: the compiler's, with a line and a column.
 *
 * class: load-failure
 * expect: reject compile-error
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

void BPF_STRUCT_OPS(does_not_compile_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 slice = SCX_SLICE_DEFAULT

	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, slice, enq_flags);
}

SCX_OPS_DEFINE(does_not_compile,
	       .enqueue	= (void *)does_not_compile_enqueue,
	       .name	= "does_not_compile");
