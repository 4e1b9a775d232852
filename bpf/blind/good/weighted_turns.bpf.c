// SPDX-License-Identifier: GPL-2.0-only
/*
 * weighted_turns: round robin in one FIFO; the length of a turn is proportional to the weight, between 1 and 40 ms.
 *
 * class: integrity
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x104
#define SLICE_NS	(8ULL * 1000 * 1000)
#define MIN_SLICE_NS	(1000ULL * 1000)
#define MAX_SLICE_NS	(40ULL * 1000 * 1000)

static u64 task_slice(const struct task_struct *p)
{
	u64 slice = scale_by_task_weight(p, SLICE_NS);

	if (slice < MIN_SLICE_NS)
		return MIN_SLICE_NS;
	return slice > MAX_SLICE_NS ? MAX_SLICE_NS : slice;
}

s32 BPF_STRUCT_OPS(weighted_turns_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, task_slice(p), 0);
	return cpu;
}

void BPF_STRUCT_OPS(weighted_turns_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, task_slice(p), enq_flags);
		return;
	}
	scx_bpf_dsq_insert(p, SHARED_DSQ, task_slice(p), enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(weighted_turns_dispatch, s32 cpu, struct task_struct *prev)
{
	if (scx_bpf_dsq_move_to_local(SHARED_DSQ, 0))
		return;
	/* Nobody waits: let it go on, with a slice of our length. */
	if (prev && (prev->scx.flags & SCX_TASK_QUEUED))
		scx_bpf_task_set_slice(prev, task_slice(prev));
}

s32 BPF_STRUCT_OPS_SLEEPABLE(weighted_turns_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(weighted_turns_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(weighted_turns,
	       .select_cpu	= (void *)weighted_turns_select_cpu,
	       .enqueue	= (void *)weighted_turns_enqueue,
	       .dispatch	= (void *)weighted_turns_dispatch,
	       .init		= (void *)weighted_turns_init,
	       .exit		= (void *)weighted_turns_exit,
	       .name		= "weighted_turns");
