// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* What a loader must join: two programs, subprograms that call each other, constants, variables, a kernel function. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

const volatile __u32 factor = 3;
__u64 runs;
__u64 last = 7;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 8);
	__uint(max_entries, 4);
} totals SEC(".maps");

void bpf_rcu_read_lock(void) __attribute__((section(".ksyms")));
void bpf_rcu_read_unlock(void) __attribute__((section(".ksyms")));

static __attribute__((noinline)) __u32 twice(__u32 number)
{
	asm volatile("" : "+r"(number));
	return number * 2;
}

static __attribute__((noinline)) __u32 scaled(__u32 number)
{
	return twice(number) * factor;
}

SEC("xdp")
int first(struct xdp_md *ctx)
{
	__u32 key = 1;
	__u64 *total = bpf_map_lookup_elem(&totals, &key);

	runs++;
	last = ctx->rx_queue_index;
	if (total)
		*total += scaled(5);
	return scaled(1);
}

SEC("xdp.frags")
int second(struct xdp_md *ctx)
{
	bpf_rcu_read_lock();
	runs += 10;
	bpf_rcu_read_unlock();
	return twice(ctx->rx_queue_index + 1);
}

char licence[] SEC("license") = "GPL";
