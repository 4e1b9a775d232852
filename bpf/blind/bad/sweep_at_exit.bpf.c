// SPDX-License-Identifier: GPL-2.0-only
/*
 * sweep_at_exit: keeps the CPU time of every task in a hash map and sweeps dead entries when a task exits.
 *
 * Failure mode: ops.exit_task runs with the run-queue lock held and walks all 1 048 576 buckets of the map, 2-5 ms,
 * for every task that exits. A fork/exit load (shell script, make) drops to some hundred processes per second on the
 * whole machine and every CPU sees millisecond interrupt-off periods; at unload it runs once per task in the system,
 * which takes another second or so. CPU-bound and pipe loads are fine.
 *
 * class: exit-path
 * expect: reject
 * needs: fork/exit load; the unload
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0xab
#define SLICE_NS	(5ULL * 1000 * 1000)

struct acct {
	u64 ran;
	u64 started;
	u64 died;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1048576);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct acct);
} accts SEC(".maps");

struct sweep_ctx {
	u64 now;
	u32 dropped;
};

s32 BPF_STRUCT_OPS(sweep_at_exit_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(sweep_at_exit_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(sweep_at_exit_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

s32 BPF_STRUCT_OPS(sweep_at_exit_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	struct acct a = { .started = bpf_ktime_get_ns() };
	u64 key = p->pid;

	bpf_map_update_elem(&accts, &key, &a, BPF_ANY);
	return 0;
}

static long sweep_one(struct bpf_map *map, u64 *key, struct acct *a, struct sweep_ctx *c)
{
	/* Keep the dead for 60 s so that a reporter can read them. */
	if (a->died && c->now - a->died > 60ULL * 1000 * 1000 * 1000) {
		bpf_map_delete_elem(map, key);
		c->dropped++;
	}
	return 0;
}

void BPF_STRUCT_OPS(sweep_at_exit_exit_task, struct task_struct *p, struct scx_exit_task_args *args)
{
	struct sweep_ctx c = { .now = bpf_ktime_get_ns() };
	u64 key = p->pid;
	struct acct *a = bpf_map_lookup_elem(&accts, &key);

	if (a)
		a->died = c.now;
	bpf_for_each_map_elem(&accts, sweep_one, &c, 0);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(sweep_at_exit_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(sweep_at_exit_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(sweep_at_exit,
	       .select_cpu	= (void *)sweep_at_exit_select_cpu,
	       .enqueue	= (void *)sweep_at_exit_enqueue,
	       .dispatch	= (void *)sweep_at_exit_dispatch,
	       .init_task	= (void *)sweep_at_exit_init_task,
	       .exit_task	= (void *)sweep_at_exit_exit_task,
	       .init		= (void *)sweep_at_exit_init,
	       .exit		= (void *)sweep_at_exit_exit,
	       .name		= "sweep_at_exit");
