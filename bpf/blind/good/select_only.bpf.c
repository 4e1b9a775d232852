// SPDX-License-Identifier: GPL-2.0-only
/*
 * select_only: direct dispatch to idle CPUs from select_cpu, everything else through the global queue.
 *
 * class: integrity
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SLICE_NS	(5ULL * 1000 * 1000)

s32 BPF_STRUCT_OPS(select_only_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(select_only_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(select_only,
	       .select_cpu	= (void *)select_only_select_cpu,
	       .exit		= (void *)select_only_exit,
	       .timeout_ms	= 10000,
	       .name		= "select_only");
