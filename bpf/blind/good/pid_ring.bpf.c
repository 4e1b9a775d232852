// SPDX-License-Identifier: GPL-2.0-only
/*
 * pid_ring: FIFO of pids in a BPF queue, a kernel queue as overflow; nothing is lost when it is full.
 *
 * class: lost-task
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x10e
#define SLICE_NS	(5ULL * 1000 * 1000)

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 4096);
	__type(value, u32);
} fifo SEC(".maps");

s32 BPF_STRUCT_OPS(pid_ring_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(pid_ring_enqueue, struct task_struct *p, u64 enq_flags)
{
	u32 pid = p->pid;
	s32 cpu;

	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	if (bpf_map_push_elem(&fifo, &pid, 0))
		scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(pid_ring_dispatch, s32 cpu, struct task_struct *prev)
{
	struct task_struct *p;
	bool moved;
	u32 pid, i;
	s32 idle;

	/* Everything passes through the shared queue, which knows affinities and drops nothing. */
	bpf_for(i, 0, 8) {
		if (bpf_map_pop_elem(&fifo, &pid))
			break;
		p = bpf_task_from_pid(pid);
		if (!p)
			continue;
		scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, 0);
		idle = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
		bpf_task_release(p);
		moved = scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
		/* Something may be left that another CPU was woken for before it was visible: wake one after. */
		if (idle >= 0)
			scx_bpf_kick_cpu(idle, SCX_KICK_IDLE);
		if (moved)
			return;
	}
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(pid_ring_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(pid_ring_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(pid_ring,
	       .select_cpu	= (void *)pid_ring_select_cpu,
	       .enqueue	= (void *)pid_ring_enqueue,
	       .dispatch	= (void *)pid_ring_dispatch,
	       .init		= (void *)pid_ring_init,
	       .exit		= (void *)pid_ring_exit,
	       .name		= "pid_ring");
