// SPDX-License-Identifier: GPL-2.0-only
/*
 * plain_fifo: one shared FIFO, 4 ms slices, direct dispatch to idle CPUs, idle CPUs are kicked for queued work.
 *
 * class: integrity
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x101
#define SLICE_NS	(4ULL * 1000 * 1000)

s32 BPF_STRUCT_OPS(plain_fifo_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(plain_fifo_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(plain_fifo_dispatch, s32 cpu, struct task_struct *prev)
{
	if (scx_bpf_dsq_move_to_local(SHARED_DSQ, 0))
		return;
	/* Nobody waits: let it go on, with a slice of our length. */
	if (prev && (prev->scx.flags & SCX_TASK_QUEUED))
		scx_bpf_task_set_slice(prev, SLICE_NS);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(plain_fifo_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(plain_fifo_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(plain_fifo,
	       .select_cpu	= (void *)plain_fifo_select_cpu,
	       .enqueue	= (void *)plain_fifo_enqueue,
	       .dispatch	= (void *)plain_fifo_dispatch,
	       .init		= (void *)plain_fifo_init,
	       .exit		= (void *)plain_fifo_exit,
	       .name		= "plain_fifo");
