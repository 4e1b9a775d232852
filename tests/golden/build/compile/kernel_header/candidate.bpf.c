// SPDX-License-Identifier: GPL-2.0-only
#include <linux/sched.h>

char _license[] SEC("license") = "GPL";

void BPF_STRUCT_OPS(x_enqueue, struct task_struct *p, u64 enq_flags)
{

}

SCX_OPS_DEFINE(x_ops, .enqueue = (void *)x_enqueue, .name = "x");
