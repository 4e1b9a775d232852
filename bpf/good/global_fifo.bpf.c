// SPDX-License-Identifier: GPL-2.0-only
/*
 * global_fifo: one queue for the whole machine, first come, first served.
 *
 * The smallest scheduler that is correct: the kernel's default CPU selection
 * sends a waking task straight to an idle CPU, everybody else waits in the
 * built-in global queue, which each CPU drains by itself. It knows no weights and
 * does not favour short tasks, so it is safe, and slow under CPU hogs.
 *
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

void BPF_STRUCT_OPS(global_fifo_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

SCX_OPS_DEFINE(global_fifo,
	       .enqueue	= (void *)global_fifo_enqueue,
	       .name	= "global_fifo");
