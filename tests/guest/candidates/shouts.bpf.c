// SPDX-License-Identifier: GPL-2.0-only
/*
 * shouts: a FIFO that writes into the kernel's trace at each tick, a thousand lines at once.
 *
 * For the tests of promotion; no guest of the corpus looks at the trace.
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define LINES 1000

static int shout(u32 i, void *unused)
{
	bpf_printk("here I am, line %u", i);
	return 0;
}

void BPF_STRUCT_OPS(shouts_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

void BPF_STRUCT_OPS(shouts_tick, struct task_struct *p)
{
	bpf_loop(LINES, shout, NULL, 0);
}

SCX_OPS_DEFINE(shouts,
	       .enqueue	= (void *)shouts_enqueue,
	       .tick	= (void *)shouts_tick,
	       .name	= "shouts");
