// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * For SAs that the kernel has: spread ESP and AH over CPUs by their SPI, so that one receive queue
 * does not mean one core. All packets of an SA go to one CPU, which keeps their order.
 *
 * A NIC that hashes over SPIs itself needs no such program. Where the kernel has SAs of one CPU
 * (XFRMA_SA_PCPU), gw_spi_cpus names the CPU of each.
 */
#include "gw_parse.h"
#include "gw_sas.h"
#include "gw_stats.h"

#define GW_MAX_CPUS 1024

/* Set at load: so many entries of gw_cpu_list are CPUs to use. 0: only those of gw_spi_cpus. */
const volatile __u32 gw_cpu_count = 0;

/* The queues, by the number of the CPU. The loader makes as many as there can be CPUs. */
struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__type(key, __u32);
	__type(value, struct gw_cpu_queue);
} gw_cpus SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, GW_MAX_CPUS);
} gw_cpu_list SEC(".maps");

/* SAs whose CPU is chosen by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct gw_spi_key);
	__type(value, __u32);
	__uint(max_entries, 65536);
} gw_spi_cpus SEC(".maps");

/* Return the CPU of an SA in the list. SPIs may be counted up, so they are mixed (Knuth). */
static __always_inline __u32 *gw_cpu_by_hash(__be32 spi_be)
{
	__u32 mixed = bpf_ntohl(spi_be) * 2654435761U;
	__u32 place = (__u64)mixed * gw_cpu_count >> 32;

	return gw_cpu_count ? bpf_map_lookup_elem(&gw_cpu_list, &place) : NULL;
}

SEC("xdp")
int gw_cpumap(struct xdp_md *ctx)
{
	struct gw_flow *flow = gw_new_flow();
	struct gw_carrier carrier = {};
	struct gw_cursor cursor;
	int verdict;
	__u32 *cpu;

	if (!flow)
		return XDP_ABORTED;
	verdict = gw_begin(ctx, &cursor, flow);
	if (verdict != GW_GO_ON)
		return verdict;
	if (flow->fragment || gw_classify(&cursor, flow, &carrier) != GW_CARRIED_IPSEC)
		return gw_pass(ctx, GW_EXIT_OTHER);
	cpu = bpf_map_lookup_elem(&gw_spi_cpus, &carrier.spi_be);
	if (!cpu)
		cpu = gw_cpu_by_hash(carrier.spi_be);
	if (!cpu)
		return gw_pass(ctx, GW_EXIT_OTHER);
	verdict = bpf_redirect_map(&gw_cpus, *cpu, XDP_PASS);
	if (verdict != XDP_REDIRECT)
		return gw_pass(ctx, GW_EXIT_OTHER); /* no queue: this CPU does it */
	return gw_exit(ctx, GW_EXIT_STEERED, verdict);
}

char gw_licence[] SEC("license") = "Dual BSD/GPL";
