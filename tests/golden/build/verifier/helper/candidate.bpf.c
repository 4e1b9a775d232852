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

void BPF_STRUCT_OPS(x_enqueue, struct task_struct *p, u64 enq_flags)
{
	char name[16];

	bpf_get_current_comm(name, sizeof(name));
	bpf_skb_load_bytes((void *)p, 0, name, 4);
}
SCX_OPS_DEFINE(x_ops, .enqueue = (void *)x_enqueue, .name = "x");
