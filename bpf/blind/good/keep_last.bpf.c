// SPDX-License-Identifier: GPL-2.0-only
/*
 * keep_last: FIFO with SCX_OPS_ENQ_LAST and SCX_OPS_ENQ_EXITING: the last runnable task goes on locally.
 *
 * class: integrity
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x10b
#define SLICE_NS	(6ULL * 1000 * 1000)

s32 BPF_STRUCT_OPS(keep_last_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(keep_last_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	/* Nothing else wants this CPU: go on, at the end of the local queue. */
	if ((enq_flags & SCX_ENQ_LAST) || ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1)) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(keep_last_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(keep_last_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(keep_last_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(keep_last,
	       .select_cpu	= (void *)keep_last_select_cpu,
	       .enqueue	= (void *)keep_last_enqueue,
	       .dispatch	= (void *)keep_last_dispatch,
	       .init		= (void *)keep_last_init,
	       .exit		= (void *)keep_last_exit,
	       .flags		= SCX_OPS_ENQ_LAST | SCX_OPS_ENQ_EXITING,
	       .dispatch_max_batch	= 8,
	       .timeout_ms	= 20000,
	       .name		= "keep_last");
