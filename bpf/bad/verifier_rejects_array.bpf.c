// SPDX-License-Identifier: GPL-2.0-only
/*
 * verifier_rejects_array: an index that nobody checked.
 *
 * Failure mode: a table for 64 CPUs, indexed with whatever CPU comes. The verifier
 * wants to see the bound.
 *
 * class: load-failure
 * expect: reject verifier-rejected
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

static u64 runs_on_cpu[64];

void BPF_STRUCT_OPS(verifier_rejects_array_running, struct task_struct *p)
{
	runs_on_cpu[scx_bpf_task_cpu(p)]++;
}

SCX_OPS_DEFINE(verifier_rejects_array,
	       .running	= (void *)verifier_rejects_array_running,
	       .name	= "verifier_rejects_array");
