// SPDX-License-Identifier: GPL-2.0-only
/*
 * gate_timer: collects woken tasks and releases them in batches on a 20 ms timer.
 *
 * Failure mode: even on an idle machine a woken user task waits for the next gate: 0-20 ms, 10 ms on average, instead
 * of microseconds; a pipe ping-pong makes about 50 round trips per second. No task starves. "Batching amortises the
 * kicks" is true of throughput benchmarks only.
 *
 * class: latency
 * expect: reject
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define PENDING_DSQ	0x50
#define READY_DSQ	0x51
#define SLICE_NS	(10ULL * 1000 * 1000)
#define GATE_NS		(20ULL * 1000 * 1000)

struct gate {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct gate);
} gate_map SEC(".maps");

static u64 batch_end;

s32 BPF_STRUCT_OPS(gate_timer_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	return prev_cpu;
}

void BPF_STRUCT_OPS(gate_timer_enqueue, struct task_struct *p, u64 enq_flags)
{
	if (p->flags & PF_KTHREAD) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	if (!(enq_flags & SCX_ENQ_WAKEUP)) {
		scx_bpf_dsq_insert(p, READY_DSQ, SLICE_NS, enq_flags);
		return;
	}
	/* Wake-ups are ordered by arrival; the timer closes a batch and hands it out in one go. */
	scx_bpf_dsq_insert_vtime(p, PENDING_DSQ, SLICE_NS, bpf_ktime_get_ns(), enq_flags);
}

void BPF_STRUCT_OPS(gate_timer_dispatch, s32 cpu, struct task_struct *prev)
{
	struct task_struct *p;
	u64 end = batch_end;

	p = __COMPAT_scx_bpf_dsq_peek(PENDING_DSQ);
	if (p && time_before(p->scx.dsq_vtime, end) && scx_bpf_dsq_move_to_local(PENDING_DSQ, 0))
		return;
	scx_bpf_dsq_move_to_local(READY_DSQ, 0);
}

static int gate_open(void *map, int *key, struct bpf_timer *timer)
{
	s32 i, nr = scx_bpf_nr_cpu_ids();

	batch_end = bpf_ktime_get_ns();
	bpf_for(i, 0, nr)
		scx_bpf_kick_cpu(i, SCX_KICK_IDLE);
	bpf_timer_start(timer, GATE_NS, 0);
	return 0;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(gate_timer_init)
{
	u32 key = 0;
	struct gate *g;
	s32 err;

	err = scx_bpf_create_dsq(PENDING_DSQ, -1) ?: scx_bpf_create_dsq(READY_DSQ, -1);
	if (err)
		return err;
	g = bpf_map_lookup_elem(&gate_map, &key);
	if (!g)
		return -ESRCH;
	bpf_timer_init(&g->timer, &gate_map, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&g->timer, gate_open);
	return bpf_timer_start(&g->timer, GATE_NS, 0);
}

void BPF_STRUCT_OPS(gate_timer_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(gate_timer,
	       .select_cpu	= (void *)gate_timer_select_cpu,
	       .enqueue		= (void *)gate_timer_enqueue,
	       .dispatch	= (void *)gate_timer_dispatch,
	       .init		= (void *)gate_timer_init,
	       .exit		= (void *)gate_timer_exit,
	       .name		= "gate_timer");
