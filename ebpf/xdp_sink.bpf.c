// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The sink of a benchmark: packets that are wanted are counted and dropped, but for samples, which go
 * on to the packet socket of the traffic generator, as does all else. It reads memory that was never
 * in a socket buffer, so that counting costs the measured machine as little as it can.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gw_sink.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct gw_sink_wanted);
	__uint(max_entries, 1);
} gw_sink_wanted SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct gw_sink_count);
	__uint(max_entries, GW_SINK_CPUS);
} gw_sink_counts SEC(".maps");

/* What every wanted packet has behind Ethernet and IPv4 without options. */
union gw_sink_rest {
	struct {
		__be32 spi_be;
		__be32 sequence_be;
	} esp;
	struct {
		__u8 udp[8];
		__u32 magic;
		__u32 flow;
		__u32 number; /* the low half of 64 bits, or the high one: samples only need some */
	} plain;
};

struct gw_sink_frame {
	struct ethhdr ethernet;
	struct iphdr ip;
	union gw_sink_rest rest;
} __attribute__((packed));

SEC("xdp")
int gw_sink(struct xdp_md *ctx)
{
	struct gw_sink_frame *frame = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 key = 0, number;
	struct gw_sink_wanted *wanted = bpf_map_lookup_elem(&gw_sink_wanted, &key);
	struct gw_sink_count *count;

	if (!wanted || (void *)(frame + 1) > end ||
	    frame->ethernet.h_proto != bpf_htons(ETH_P_IP) || frame->ip.ihl != 5 ||
	    frame->ip.version != 4 || frame->ip.protocol != wanted->protocol)
		return XDP_PASS;
	if (frame->ip.protocol == IPPROTO_ESP) {
		if (bpf_ntohl(frame->rest.esp.spi_be) - wanted->first_spi >= wanted->spis)
			return XDP_PASS;
		number = bpf_ntohl(frame->rest.esp.sequence_be);
	} else {
		if (frame->rest.plain.magic != wanted->magic)
			return XDP_PASS;
		number = frame->rest.plain.number;
	}
	key = bpf_get_smp_processor_id();
	count = bpf_map_lookup_elem(&gw_sink_counts, &key);
	if (!count)
		return XDP_PASS;
	count->packets++;
	count->bytes += bpf_ntohs(frame->ip.tot_len);
	return number & wanted->sample_mask ? XDP_DROP : XDP_PASS;
}

char gw_licence[] SEC("license") = "Dual BSD/GPL";
