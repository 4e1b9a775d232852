// SPDX-License-Identifier: GPL-2.0-only
#include <scx/common.bpf.h>
char _license[] SEC("license") = "GPL";
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, u32);
	__type(value, u64);
} counts SEC(".maps");
u64 table[8];
u64 total;

void BPF_STRUCT_OPS(x_running, struct task_struct *p)
{
	scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, SCX_SLICE_DFL, 0);
}
SCX_OPS_DEFINE(x_ops, .running = (void *)x_running, .name = "x");
