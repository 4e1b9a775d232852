// SPDX-License-Identifier: GPL-2.0-only
/*
 * whole_core_first: FIFO that prefers CPUs of fully idle cores, then the previous CPU, then any idle one.
 *
 * class: topology
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x109
#define SLICE_NS	(5ULL * 1000 * 1000)

s32 BPF_STRUCT_OPS(whole_core_first_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	s32 cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, SCX_PICK_IDLE_CORE);

	if (cpu < 0 && bpf_cpumask_test_cpu(prev_cpu, p->cpus_ptr) && scx_bpf_test_and_clear_cpu_idle(prev_cpu))
		cpu = prev_cpu;
	if (cpu < 0)
		cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu < 0)
		return bpf_cpumask_test_cpu(prev_cpu, p->cpus_ptr) ? prev_cpu : scx_bpf_pick_any_cpu(p->cpus_ptr, 0);

	scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(whole_core_first_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(whole_core_first_dispatch, s32 cpu, struct task_struct *prev)
{
	if (scx_bpf_dsq_move_to_local(SHARED_DSQ, 0))
		return;
	/* Nobody waits: let it go on, with a slice of our length. */
	if (prev && (prev->scx.flags & SCX_TASK_QUEUED))
		scx_bpf_task_set_slice(prev, SLICE_NS);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(whole_core_first_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(whole_core_first_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(whole_core_first,
	       .select_cpu	= (void *)whole_core_first_select_cpu,
	       .enqueue	= (void *)whole_core_first_enqueue,
	       .dispatch	= (void *)whole_core_first_dispatch,
	       .init		= (void *)whole_core_first_init,
	       .exit		= (void *)whole_core_first_exit,
	       .name		= "whole_core_first");
