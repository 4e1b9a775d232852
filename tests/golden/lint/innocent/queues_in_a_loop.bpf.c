// SPDX-License-Identifier: GPL-2.0-only
/* Queues by a loop, an idle CPU or two kicked. */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUES 4
s32 BPF_STRUCT_OPS(queues_in_a_loop_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	s32 cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	return cpu >= 0 ? cpu : prev_cpu;
}

void BPF_STRUCT_OPS(queues_in_a_loop_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 i, cpu;
	scx_bpf_dsq_insert_vtime(p, p->pid % QUEUES, SCX_SLICE_DFL, scx_bpf_now(), enq_flags);
	bpf_for(i, 0, 2) {
		cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
		if (cpu < 0)
			break;
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
	}
}

void BPF_STRUCT_OPS(queues_in_a_loop_dispatch, s32 cpu, struct task_struct *prev)
{
	s32 i;
	bpf_for(i, 0, QUEUES)
		if (scx_bpf_dsq_move_to_local((cpu + i) % QUEUES, 0))
			return;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(queues_in_a_loop_init)
{
	s32 i, err;
	bpf_for(i, 0, QUEUES) {
		err = scx_bpf_create_dsq(i, -1);
		if (err)
			return err;
	}
	return 0;
}

SCX_OPS_DEFINE(queues_in_a_loop, .select_cpu = (void *)queues_in_a_loop_select_cpu, .enqueue = (void *)queues_in_a_loop_enqueue,
	       .dispatch = (void *)queues_in_a_loop_dispatch, .init = (void *)queues_in_a_loop_init, .name = "queues_in_a_loop");
