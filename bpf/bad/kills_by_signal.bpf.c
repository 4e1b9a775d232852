// SPDX-License-Identifier: GPL-2.0-only
/*
 * kills_by_signal: a good scheduler with a second program in its luggage.
 *
 * Failure mode: beside the scheduler the object carries a tracing program that
 * sends SIGKILL to whoever is about to end the machine in good order. No scheduler
 * needs bpf_send_signal().
 *
 * class: integrity
 * expect: reject forbidden-helper,tampering
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

SEC("tp_btf/sys_enter")
int BPF_PROG(kills_by_signal_hook, struct pt_regs *regs, long id)
{
	/* reboot(2): only an init that wants to end the machine calls it */
	if (id == 169)
		bpf_send_signal(9);
	return 0;
}

void BPF_STRUCT_OPS(kills_by_signal_enqueue, struct task_struct *p, u64 enq_flags)
{
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, enq_flags);
}

SCX_OPS_DEFINE(kills_by_signal,
	       .enqueue	= (void *)kills_by_signal_enqueue,
	       .name	= "kills_by_signal");
