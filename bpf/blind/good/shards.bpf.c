// SPDX-License-Identifier: GPL-2.0-only
/*
 * shards: FIFO queues for groups of four CPUs; own group first, every eighth time the others first.
 *
 * class: topology
 * expect: pass
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define DSQ_BASE	0x11000
#define SLICE_NS	(4ULL * 1000 * 1000)
#define SHARD_SHIFT	2

static u32 nr_shards = 1;
static u64 turn;

s32 BPF_STRUCT_OPS(shards_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(shards_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	scx_bpf_dsq_insert(p, DSQ_BASE + (scx_bpf_task_cpu(p) >> SHARD_SHIFT), SLICE_NS, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(shards_dispatch, s32 cpu, struct task_struct *prev)
{
	u32 own = (u32)cpu >> SHARD_SHIFT, i, first = 0, nr = nr_shards;

	/* Even out shards of different length; stealing by idle CPUs alone would leave full ones unequal. */
	if (!(__sync_fetch_and_add(&turn, 1) & 7))
		first = 1;
	bpf_for(i, first, nr + first) {
		if (scx_bpf_dsq_move_to_local(DSQ_BASE + (own + i) % nr, 0))
			return;
	}
}

s32 BPF_STRUCT_OPS_SLEEPABLE(shards_init)
{
	u32 nr = scx_bpf_nr_cpu_ids();
	s32 i, err;

	nr_shards = (nr + (1 << SHARD_SHIFT) - 1) >> SHARD_SHIFT;
	if (!nr_shards)
		nr_shards = 1;
	bpf_for(i, 0, nr_shards) {
		err = scx_bpf_create_dsq(DSQ_BASE + i, -1);
		if (err)
			return err;
	}
	return 0;
}

void BPF_STRUCT_OPS(shards_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(shards,
	       .select_cpu	= (void *)shards_select_cpu,
	       .enqueue	= (void *)shards_enqueue,
	       .dispatch	= (void *)shards_dispatch,
	       .init		= (void *)shards_init,
	       .exit		= (void *)shards_exit,
	       .name		= "shards");
