// SPDX-License-Identifier: GPL-2.0-only
/*
 * rotate_spin: queue of pids; dispatch rotates it until it finds a task that may run here.
 *
 * Failure mode: when the queue holds only tasks pinned to other CPUs, an idle CPU pops and pushes the same entries up
 * to 4 million times per dispatch, with its run-queue lock held and interrupts off: 0.5-1 s frozen each time
 * something wakes it, timers and IPIs late, soft-lockup or RCU complaints with several CPUs. "The loop ends when the
 * queue is empty" - it isn't.
 *
 * class: lockup
 * expect: reject
 * needs: 2 CPUs; a user task pinned to a busy CPU while another CPU is idle
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SLICE_NS	(5ULL * 1000 * 1000)
#define MAX_ROTATE	(1 << 22)

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 16384);
	__type(value, u32);
} fifo SEC(".maps");

s32 BPF_STRUCT_OPS(rotate_spin_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(rotate_spin_enqueue, struct task_struct *p, u64 enq_flags)
{
	u32 pid = p->pid;
	s32 cpu;

	if ((p->flags & PF_KTHREAD) || bpf_map_push_elem(&fifo, &pid, 0)) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(rotate_spin_dispatch, s32 cpu, struct task_struct *prev)
{
	struct task_struct *p;
	bool done;
	u32 pid, i;

	/* Keep order: what this CPU may not run goes back to the end, the next one is tried. */
	bpf_for(i, 0, MAX_ROTATE) {
		if (bpf_map_pop_elem(&fifo, &pid))
			return;
		p = bpf_task_from_pid(pid);
		if (!p)
			continue;
		done = bpf_cpumask_test_cpu(cpu, p->cpus_ptr);
		if (done)
			scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
		else
			bpf_map_push_elem(&fifo, &pid, 0);
		bpf_task_release(p);
		if (done)
			return;
	}
}

void BPF_STRUCT_OPS(rotate_spin_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(rotate_spin,
	       .select_cpu	= (void *)rotate_spin_select_cpu,
	       .enqueue	= (void *)rotate_spin_enqueue,
	       .dispatch	= (void *)rotate_spin_dispatch,
	       .exit		= (void *)rotate_spin_exit,
	       .name		= "rotate_spin");
