// SPDX-License-Identifier: GPL-2.0-only
/*
 * pid_slots: per-task state in an array indexed by pid.
 *
 * Failure mode: pids grow with every fork since boot, not with the number of live tasks. After some 4000 forks a task
 * has no slot, and when it is queued the scheduler ejects itself with scx_bpf_error. In a fresh guest that takes a
 * fork burst or many minutes; on a long-running machine it happens at once after the load.
 *
 * class: memory
 * expect: reject
 * needs: heavy forking (pids beyond 4096), then more runnable tasks than CPUs
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0xae
#define SLICE_NS	(5ULL * 1000 * 1000)
#define MAX_PID		4096

struct pid_slot {
	u64 nr_enq;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_PID);
	__type(key, u32);
	__type(value, struct pid_slot);
} slots SEC(".maps");

s32 BPF_STRUCT_OPS(pid_slots_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(pid_slots_enqueue, struct task_struct *p, u64 enq_flags)
{
	u32 pid = p->pid;
	struct pid_slot *s = bpf_map_lookup_elem(&slots, &pid);
	s32 cpu;

	if (!s) {
		scx_bpf_error("pid %d has no slot", p->pid);
		return;
	}
	/* An array is the fastest map there is: no hashing, no allocation. */
	__sync_fetch_and_add(&s->nr_enq, 1);
	scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(pid_slots_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(pid_slots_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(pid_slots_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(pid_slots,
	       .select_cpu	= (void *)pid_slots_select_cpu,
	       .enqueue	= (void *)pid_slots_enqueue,
	       .dispatch	= (void *)pid_slots_dispatch,
	       .init		= (void *)pid_slots_init,
	       .exit		= (void *)pid_slots_exit,
	       .name		= "pid_slots");
