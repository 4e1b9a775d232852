// SPDX-License-Identifier: GPL-2.0-only
/*
 * inverts_weights: multiplies where it should divide.
 *
 * Failure mode: a task's virtual time should run slower the heavier it is, and here it
 * runs faster. Whoever is niced up gets a fraction of the machine, whoever is niced down
 * the rest, twenty times as much and more between nice -10 and nice 10. Equal tasks are
 * treated equally, so only a look at nice values shows it.
 *
 * class: unfair
 * expect: reject unfair-share,canary-starved,task-starved,latency-collapse
 * policy: full
 * needs: busy tasks of different nice values
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE		0
#define SLICE_NS	(5 * 1000 * 1000ULL)

static u64 machine_vtime;

s32 BPF_STRUCT_OPS(inverts_weights_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(inverts_weights_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 oldest = machine_vtime - SLICE_NS;
	u64 vtime = p->scx.dsq_vtime;

	if (time_before(vtime, oldest))
		vtime = oldest;
	scx_bpf_dsq_insert_vtime(p, QUEUE, SLICE_NS, vtime, enq_flags);
}

void BPF_STRUCT_OPS(inverts_weights_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

void BPF_STRUCT_OPS(inverts_weights_running, struct task_struct *p)
{
	if (time_before(machine_vtime, p->scx.dsq_vtime))
		machine_vtime = p->scx.dsq_vtime;
}

void BPF_STRUCT_OPS(inverts_weights_stopping, struct task_struct *p, bool runnable)
{
	u64 left = p->scx.slice;
	u64 used = left < SLICE_NS ? SLICE_NS - left : 0;

	scx_bpf_task_set_dsq_vtime(p, p->scx.dsq_vtime + used * p->scx.weight / 100);
}

void BPF_STRUCT_OPS(inverts_weights_enable, struct task_struct *p)
{
	scx_bpf_task_set_dsq_vtime(p, machine_vtime);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(inverts_weights_init)
{
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(inverts_weights,
	       .select_cpu	= (void *)inverts_weights_select_cpu,
	       .enqueue		= (void *)inverts_weights_enqueue,
	       .dispatch	= (void *)inverts_weights_dispatch,
	       .running		= (void *)inverts_weights_running,
	       .stopping	= (void *)inverts_weights_stopping,
	       .enable		= (void *)inverts_weights_enable,
	       .init		= (void *)inverts_weights_init,
	       .name		= "inverts_weights");
