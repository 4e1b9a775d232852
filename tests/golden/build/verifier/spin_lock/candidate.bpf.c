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
struct locked { struct bpf_spin_lock lock; int n; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, u32); __type(value, struct locked); } locks SEC(".maps");
void BPF_STRUCT_OPS(x_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct locked *lock;
	u32 zero = 0;

	lock = bpf_map_lookup_elem(&locks, &zero);
	if (!lock)
		return;
	bpf_spin_lock(&lock->lock);
	lock->n++;
	if (lock->n > 5)
		return;
	bpf_spin_unlock(&lock->lock);
}
SCX_OPS_DEFINE(x_ops, .enqueue = (void *)x_enqueue, .name = "x");
