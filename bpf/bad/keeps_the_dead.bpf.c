// SPDX-License-Identifier: GPL-2.0-only
/*
 * keeps_the_dead: a history of every task there ever was.
 *
 * Failure mode: an entry of some KiB is made for each task that is born, by its number, and
 * ops.exit_task() was never written. The table is allocated as it grows and is large
 * enough for days, so nothing fails: memory is lost, a little with each process.
 *
 * class: memory
 * expect: reject memory-grows,out-of-memory
 * policy: full
 * scenario: many-tasks
 * lint: lint-map-grows
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

struct history {
	u64 turns;
	u64 lengths[400];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 20);
	__type(key, u64);
	__type(value, struct history);
} tasks SEC(".maps");

static struct history blank;
static u64 last_id;

void BPF_STRUCT_OPS(keeps_the_dead_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

s32 BPF_STRUCT_OPS(keeps_the_dead_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	u64 id = __sync_fetch_and_add(&last_id, 1);

	bpf_map_update_elem(&tasks, &id, &blank, BPF_ANY);
	return 0;
}

SCX_OPS_DEFINE(keeps_the_dead,
	       .enqueue		= (void *)keeps_the_dead_enqueue,
	       .init_task	= (void *)keeps_the_dead_init_task,
	       .name		= "keeps_the_dead");
