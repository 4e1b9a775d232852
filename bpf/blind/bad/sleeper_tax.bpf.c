// SPDX-License-Identifier: GPL-2.0-only
/*
 * sleeper_tax: vtime scheduler that takes away the bonus of sleeping.
 *
 * Failure mode: a woken task is placed 60 ms of vtime behind the running ones. With H hogs per CPU it waits about H x
 * 60 ms at every wake-up (2: 120 ms, 4: 240 ms) however little it uses, where EEVDF needs 0-3 ms; a 1 ms periodic
 * task gets a percent of its rate. The hogs get all the CPU. The clamp that people remember (limit the bonus) is
 * turned into a punishment.
 *
 * class: latency
 * expect: reject
 * needs: interactive tasks beside more CPU hogs than CPUs
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";
UEI_DEFINE(uei);

#define SHARED_DSQ	0xad
#define SLICE_NS	(5ULL * 1000 * 1000)
#define TAX_NS		(60ULL * 1000 * 1000)

static u64 vtime_now;

s32 BPF_STRUCT_OPS(sleeper_tax_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	bool is_idle = false;
	s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

	if (is_idle)
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
	return cpu;
}

void BPF_STRUCT_OPS(sleeper_tax_enqueue, struct task_struct *p, u64 enq_flags)
{
	u64 vtime = p->scx.dsq_vtime;
	s32 cpu;

	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, enq_flags);
		return;
	}
	/*
	 * A sleeper must not come back with an old vtime and push the others away: let it line up behind those who
	 * have been working all the time.
	 */
	if ((enq_flags & SCX_ENQ_WAKEUP) && time_before(vtime, vtime_now + TAX_NS))
		vtime = vtime_now + TAX_NS;
	else if (time_before(vtime, vtime_now - SLICE_NS))
		vtime = vtime_now - SLICE_NS;
	scx_bpf_dsq_insert_vtime(p, SHARED_DSQ, SLICE_NS, vtime, enq_flags);
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(sleeper_tax_dispatch, s32 cpu, struct task_struct *prev)
{
	scx_bpf_dsq_move_to_local(SHARED_DSQ, 0);
}

void BPF_STRUCT_OPS(sleeper_tax_running, struct task_struct *p)
{
	/* The clock follows the tasks that keep running; a woken one is ahead of it. */
	if (time_before(vtime_now, p->scx.dsq_vtime) && time_before(p->scx.dsq_vtime, vtime_now + TAX_NS / 2))
		vtime_now = p->scx.dsq_vtime;
}

void BPF_STRUCT_OPS(sleeper_tax_stopping, struct task_struct *p, bool runnable)
{
	u64 used = p->scx.slice < SLICE_NS ? SLICE_NS - p->scx.slice : 0;

	scx_bpf_task_set_dsq_vtime(p, p->scx.dsq_vtime + scale_by_task_weight_inverse(p, used));
}

void BPF_STRUCT_OPS(sleeper_tax_enable, struct task_struct *p)
{
	scx_bpf_task_set_dsq_vtime(p, vtime_now);
}

s32 BPF_STRUCT_OPS_SLEEPABLE(sleeper_tax_init)
{
	return scx_bpf_create_dsq(SHARED_DSQ, -1);
}

void BPF_STRUCT_OPS(sleeper_tax_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(sleeper_tax,
	       .select_cpu	= (void *)sleeper_tax_select_cpu,
	       .enqueue	= (void *)sleeper_tax_enqueue,
	       .dispatch	= (void *)sleeper_tax_dispatch,
	       .running	= (void *)sleeper_tax_running,
	       .stopping	= (void *)sleeper_tax_stopping,
	       .enable		= (void *)sleeper_tax_enable,
	       .init		= (void *)sleeper_tax_init,
	       .exit		= (void *)sleeper_tax_exit,
	       .name		= "sleeper_tax");
