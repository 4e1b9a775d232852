// SPDX-License-Identifier: GPL-2.0-only
/*
 * writes_memoirs: keeps a record of every run and frees none.
 *
 * Failure mode: statistics in a table without a bound worth the name, sixteen KiB for
 * each time that a task is queued, starts or stops. Its scheduling is faultless. The
 * memory is nobody's: no limit holds it, and when it is used up the kernel kills
 * processes.
 *
 * class: memory
 * expect: reject out-of-memory,fork-vetoed,machine-locked-up,no-progress,kernel-panic,throughput-collapse,crawl
 * needs: heavy load
 * lint: lint-map-grows
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

#define QUEUE		0
#define SLICE_NS	(1000 * 1000ULL)

struct memoir {
	u64 at;
	char words[16000];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 22);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct memoir);
} memoirs SEC(".maps");

static struct memoir blank;
static u64 last_id;

static void remember(void)
{
	u64 id = __sync_fetch_and_add(&last_id, 1);

	bpf_map_update_elem(&memoirs, &id, &blank, BPF_ANY);
}

s32 BPF_STRUCT_OPS(writes_memoirs_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);

	if (idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(writes_memoirs_enqueue, struct task_struct *p, u64 enq_flags)
{
	remember();
	scx_bpf_dsq_insert(p, QUEUE, SLICE_NS, enq_flags);
}

void BPF_STRUCT_OPS(writes_memoirs_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(QUEUE, 0);
}

void BPF_STRUCT_OPS(writes_memoirs_running, struct task_struct *p)
{
	remember();
}

void BPF_STRUCT_OPS(writes_memoirs_stopping, struct task_struct *p, bool runnable)
{
	remember();
}

s32 BPF_STRUCT_OPS_SLEEPABLE(writes_memoirs_init)
{
	return scx_bpf_create_dsq(QUEUE, NUMA_NO_NODE);
}

SCX_OPS_DEFINE(writes_memoirs,
	       .select_cpu	= (void *)writes_memoirs_select_cpu,
	       .enqueue		= (void *)writes_memoirs_enqueue,
	       .dispatch	= (void *)writes_memoirs_dispatch,
	       .running		= (void *)writes_memoirs_running,
	       .stopping	= (void *)writes_memoirs_stopping,
	       .init		= (void *)writes_memoirs_init,
	       .name		= "writes_memoirs");
