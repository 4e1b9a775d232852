// SPDX-License-Identifier: GPL-2.0-only
/*
 * task_table_leak: per-task statistics in a hash map keyed by pid.
 *
 * Failure mode: init_task adds an entry per task, nothing removes it when the task exits. After about 2000 forks the
 * map is full, init_task answers -ENOMEM and from then on every fork() and clone() on the machine fails. The
 * scheduler stays enabled and running tasks are fine, so no watchdog helps; not even a shell can start a command to
 * unload it.
 *
 * class: memory
 * expect: reject
 * needs: heavy forking (more than 2048 forks after load)
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x84
#define SLICE_NS	(5ULL * 1000 * 1000)

struct task_stat {
	u64 nr_runs;
	u64 last_ran;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2048);
	__type(key, u32);
	__type(value, struct task_stat);
} stats SEC(".maps");

s32 BPF_STRUCT_OPS(task_table_leak_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(task_table_leak_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(task_table_leak_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

void BPF_STRUCT_OPS(task_table_leak_running, struct task_struct *p)
{
	u32 pid = p->pid;
	struct task_stat *s = bpf_map_lookup_elem(&stats, &pid);

	if (s) {
		s->nr_runs++;
		s->last_ran = bpf_ktime_get_ns();
	}
}

s32 BPF_STRUCT_OPS(task_table_leak_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	struct task_stat zero = {};
	u32 pid = p->pid;

	/* 2048 tasks at a time is more than this machine ever runs. */
	if (bpf_map_update_elem(&stats, &pid, &zero, BPF_ANY))
		return -ENOMEM;
	return 0;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(task_table_leak_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(task_table_leak_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(task_table_leak,
	       .select_cpu	= (void *)task_table_leak_select_cpu,
	       .enqueue	= (void *)task_table_leak_enqueue,
	       .dispatch	= (void *)task_table_leak_dispatch,
	       .running	= (void *)task_table_leak_running,
	       .init_task	= (void *)task_table_leak_init_task,
	       .init		= (void *)task_table_leak_init,
	       .exit		= (void *)task_table_leak_exit,
	       .name		= "task_table_leak");
