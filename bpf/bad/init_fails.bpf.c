// SPDX-License-Identifier: GPL-2.0-only
/*
 * init_fails: says no when it is asked to begin.
 *
 * Failure mode: ops.init() returns an error. The attach call itself succeeds all
 * the same; only the exit record and the state tell that nobody is in charge.
 *
 * class: init-failure
 * expect: reject init-failed
 * lint: lint-init-fails
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

s32 BPF_STRUCT_OPS_SLEEPABLE(init_fails_init)
{
	return -EINVAL;
}

SCX_OPS_DEFINE(init_fails,
	       .init	= (void *)init_fails_init,
	       .name	= "init_fails");
