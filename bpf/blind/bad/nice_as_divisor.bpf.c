// SPDX-License-Identifier: GPL-2.0-only
/*
 * nice_as_divisor: weighted round robin: FIFO with a slice that depends on the weight.
 *
 * Failure mode: the slice is divided by the weight instead of multiplied. A nice 19 hog gets 800 ms turns, a nice 0
 * hog 8 ms, a nice -20 hog 0.1 ms: priorities are upside down (nice 19 gets 99 % against nice 0), and one niced
 * background job adds 0.8 s to the wake-up latency of everybody else. Only vtime charges are divided by the weight;
 * people mix the two up.
 *
 * class: unfair
 * expect: reject
 * needs: tasks of different nice values competing for a CPU
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x82
#define SLICE_NS	(8ULL * 1000 * 1000)
#define MAX_SLICE_NS	(800ULL * 1000 * 1000)

static u64 task_slice(struct task_struct *p)
{
	/* Scale the slice by the weight of the task; keep it sane. */
	u64 slice = scale_by_task_weight_inverse(p, SLICE_NS);

	return slice > MAX_SLICE_NS ? MAX_SLICE_NS : slice;
}

s32 BPF_STRUCT_OPS(nice_as_divisor_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, task_slice(p), 0);
	return cpu;
}

void BPF_STRUCT_OPS(nice_as_divisor_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	scx_bpf_dsq_insert(p, SHARED_DSQ, task_slice(p), enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(nice_as_divisor_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(nice_as_divisor_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(nice_as_divisor_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(nice_as_divisor,
	       .select_cpu	= (void *)nice_as_divisor_select_cpu,
	       .enqueue	= (void *)nice_as_divisor_enqueue,
	       .dispatch	= (void *)nice_as_divisor_dispatch,
	       .init		= (void *)nice_as_divisor_init,
	       .exit		= (void *)nice_as_divisor_exit,
	       .name		= "nice_as_divisor");
