// SPDX-License-Identifier: GPL-2.0-only
/*
 * mask_from_birth: spreads tasks over the CPUs of their affinity mask, which it keeps in task storage.
 *
 * Failure mode: the mask is copied in init_task (at fork) and ops.set_cpumask is missing. After sched_setaffinity(),
 * that is with every taskset, cpuset or pinned worker pool, the scheduler inserts into the local queue of a CPU that
 * the task may not use and the kernel ejects it, as soon as such a task is preempted or woken on a busy CPU. Never
 * with unpinned loads.
 *
 * class: affinity
 * expect: reject
 * needs: 2 CPUs; sched_setaffinity() after fork (taskset, cpuset) on a busy CPU
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SLICE_NS	(5ULL * 1000 * 1000)

struct task_ctx {
	u64 mask;
	u32 next;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_ctx);
} ctxs SEC(".maps");

s32 BPF_STRUCT_OPS(mask_from_birth_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(mask_from_birth_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct task_ctx *t = bpf_task_storage_get(&ctxs, p, 0, 0);
	s32 i, cpu, nr = scx_bpf_nr_cpu_ids(), target = scx_bpf_task_cpu(p);

	if (!t || (p->flags & PF_KTHREAD)) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}

	/* Deal the CPUs of the mask out in turn: even load without a shared queue. */
	bpf_for(i, 0, 64) {
		cpu = t->next++ % 64;
		if (cpu < nr && (t->mask & (1ULL << cpu))) {
			target = cpu;
			break;
		}
	}
	scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL_ON | target, SLICE_NS, enq_flags);
}

s32 BPF_STRUCT_OPS(mask_from_birth_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	s32 i, nr = scx_bpf_nr_cpu_ids();
	struct task_ctx *t;

	t = bpf_task_storage_get(&ctxs, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!t)
		return -ENOMEM;
	/* A task keeps its mask, so read it once. */
	bpf_for(i, 0, 64) {
		if (i < nr && bpf_cpumask_test_cpu(i, p->cpus_ptr))
			t->mask |= 1ULL << i;
	}
	return 0;
}

void BPF_STRUCT_OPS(mask_from_birth_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(mask_from_birth,
	       .select_cpu	= (void *)mask_from_birth_select_cpu,
	       .enqueue	= (void *)mask_from_birth_enqueue,
	       .init_task	= (void *)mask_from_birth_init_task,
	       .exit		= (void *)mask_from_birth_exit,
	       .name		= "mask_from_birth");
