// SPDX-License-Identifier: GPL-2.0-only
/*
 * exit_percentiles: FIFO that keeps a latency histogram and computes percentiles at exit.
 *
 * Failure mode: ops.exit walks 4 million samples for each of 1000 percentiles (4 billion loop steps, 6-20 s). The
 * detach does not return before, the helper that runs it is a real-time thread that keeps one CPU, and no other
 * scheduler can be loaded meanwhile. While it is enabled nothing is wrong, so it shows only at unload or, worse, when
 * an error exit should rescue the machine.
 *
 * class: exit-path
 * expect: reject
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0x89
#define SLICE_NS	(5ULL * 1000 * 1000)
#define NR_SAMPLES	(1 << 22)
#define NR_PCT		1000

static u64 hist[256];
static u64 enq_at;
static u64 percentile[NR_PCT];

s32 BPF_STRUCT_OPS(exit_percentiles_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(exit_percentiles_enqueue, struct task_struct *p, u64 enq_flags)
{
	s32 cpu;

	enq_at = bpf_ktime_get_ns();
	scx_bpf_dsq_insert(p, SHARED_DSQ, SLICE_NS, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(exit_percentiles_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

void BPF_STRUCT_OPS(exit_percentiles_running, struct task_struct *p)
{
	u64 us = (bpf_ktime_get_ns() - enq_at) / 1000;

	__sync_fetch_and_add(&hist[log2_u64(us) & 255], 1);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(exit_percentiles_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

struct pct_ctx {
	u32 pct;
	u64 sum;
};

static int add_bucket(u32 i, struct pct_ctx *c)
{
	c->sum += hist[(i ^ c->pct) & 255];
	return 0;
}

static int one_percentile(u32 i, struct pct_ctx *c)
{
	c->pct = i;
	/* Walk the samples from the smallest to the wanted share. */
	bpf_loop(NR_SAMPLES, add_bucket, c, 0);
	if (i < NR_PCT)
		percentile[i] = c->sum;
	return 0;
}

void BPF_STRUCT_OPS_SLEEPABLE(exit_percentiles_exit, struct scx_exit_info *ei)
{
	struct pct_ctx c = {};

	/* Leave a full set of percentiles behind for the report. */
	bpf_loop(NR_PCT, one_percentile, &c, 0);
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(exit_percentiles,
	       .select_cpu	= (void *)exit_percentiles_select_cpu,
	       .enqueue	= (void *)exit_percentiles_enqueue,
	       .dispatch	= (void *)exit_percentiles_dispatch,
	       .running	= (void *)exit_percentiles_running,
	       .init		= (void *)exit_percentiles_init,
	       .exit		= (void *)exit_percentiles_exit,
	       .name		= "exit_percentiles");
