// SPDX-License-Identifier: GPL-2.0-only
/*
 * stays_on_hotplug: goes on when CPUs come and go, and says why it ends.
 *
 * With ops.cpu_online() and ops.cpu_offline() the kernel keeps a scheduler through
 * hotplug. There is nothing to move: all wait in one queue, which every CPU drains, and
 * a CPU that goes hands its tasks to ops.enqueue() again. The exit record and a watchdog
 * of five seconds are what a scheduler for other people's machines should have.
 *
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE		0
#define SLICE_NS	(5 * 1000 * 1000ULL)

UEI_DEFINE(uei);

static u32 changes;

s32 BPF_STRUCT_OPS(stays_on_hotplug_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(stays_on_hotplug_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 idle;

	scx_bpf_dsq_insert(p, QUEUE, SLICE_NS, enq_flags);
	idle = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (idle >= 0)
		scx_bpf_kick_cpu(idle, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(stays_on_hotplug_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

void BPF_STRUCT_OPS(stays_on_hotplug_cpu_online, s32 cpu)
{
	__sync_fetch_and_add(&changes, 1);
}

void BPF_STRUCT_OPS(stays_on_hotplug_cpu_offline, s32 cpu)
{
	__sync_fetch_and_add(&changes, 1);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(stays_on_hotplug_init)
{
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

void BPF_STRUCT_OPS(stays_on_hotplug_exit, struct scx_exit_info *info)
{
	UEI_RECORD(uei, info);
}

SCX_OPS_DEFINE(stays_on_hotplug,
	       .select_cpu	= (void *)stays_on_hotplug_select_cpu,
	       .enqueue		= (void *)stays_on_hotplug_enqueue,
	       .dispatch	= (void *)stays_on_hotplug_dispatch,
	       .cpu_online	= (void *)stays_on_hotplug_cpu_online,
	       .cpu_offline	= (void *)stays_on_hotplug_cpu_offline,
	       .init		= (void *)stays_on_hotplug_init,
	       .exit		= (void *)stays_on_hotplug_exit,
	       .timeout_ms	= 5000,
	       .name		= "stays_on_hotplug");
