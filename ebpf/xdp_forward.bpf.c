// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Forwarding beside packet offload: plaintext between the LAN and the NIC that does ESP itself.
 *
 * A NIC with packet offload encrypts what is sent to it and decrypts what comes, by policies that
 * the kernel gave it. Going through the kernel's forwarding for that wastes it. This program
 * mirrors SPD and next hops, and forwards what they name between the interfaces of gw_ports:
 *
 *   LAN      PROTECT by an SA that the NIC has: forwarded to it, in clear; the NIC encrypts
 *            other PROTECT: to the stack, whose policies protect it
 *   OFFLOAD  PROTECT by an SA by which this NIC decrypts, where the operator has said that it
 *            lets nothing in in clear: forwarded to the LAN; anything else to the stack, which can
 *            tell what was encrypted
 *
 * A NIC sends in clear what it has no SA for, and may let in in clear what it has no SA for. So
 * each packet is forwarded only while the kernel has the SA, which is asked for every packet: a
 * device that goes down, is unbound or reset takes its SAs out of the kernel's table before it can
 * send or receive again, whoever notices. And only while the agent is alive and says so
 * (gw_lease): next hops grow old.
 *
 * TTL, link header and MSS are changed on the way. What is too big for a tunnel is answered; what
 * comes out of one and is too big for the LAN is the stack's to answer, through the tunnel. All
 * else goes to the stack: other VLANs and link addresses, IP options, fragments, TTL 1, what has
 * no next hop.
 */
#include "gw_forward.h"
#include "gw_link.h"
#include "gw_locals.h"
#include "gw_parse.h"
#include "gw_sas.h"
#include "gw_spd.h"
#include "gw_stats.h"
#include "gw_too_big.h"
#include "gw_xfrm.h"

/* Set at load: the least time between two ICMP errors of one CPU (RFC 4443 section 2.4 (f)). */
const volatile __u64 gw_error_interval_ns = 1000000;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct gw_port_key);
	__type(value, struct gw_port);
	__uint(max_entries, 256);
} gw_ports SEC(".maps");

GW_SPD_MAP(gw_next_hops4, struct gw_prefix4, struct gw_next_hop, 65536);
GW_SPD_MAP(gw_next_hops6, struct gw_prefix6, struct gw_next_hop, 65536);

/* The interfaces of the next hops, by their index. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 256);
} gw_devices SEC(".maps");

/* SAs that NICs have, by the numbers in the SPD: those by which they encrypt, ... */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct gw_offloaded_sa);
	__uint(max_entries, 65536);
} gw_offloaded_sas SEC(".maps");

/* ... and those by which they decrypt. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct gw_inbound_nic_sa);
	__uint(max_entries, 65536);
} gw_inbound_sas SEC(".maps");

/* Until when the agent stands for all of this: CLOCK_MONOTONIC, nanoseconds. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} gw_lease SEC(".maps");

/* When the next ICMP error is on time. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} gw_errors SEC(".maps");

static __always_inline struct gw_next_hop *gw_find_next_hop(const struct gw_flow *flow)
{
	if (flow->family == 4) {
		struct gw_prefix4 key = {32, flow->destination.words_be[3]};

		return bpf_map_lookup_elem(&gw_next_hops4, &key);
	} else {
		struct gw_prefix6 key = {.prefix_bits = 128};

		__builtin_memcpy(key.address, &flow->destination, 16);
		return bpf_map_lookup_elem(&gw_next_hops6, &key);
	}
}

static __always_inline int gw_is_ours(struct xdp_md *ctx, const struct gw_port *port)
{
	struct gw_cursor cursor = gw_cursor_at(ctx, 0);
	struct ethhdr *ethernet;
	__u32 differs = 0;

	if (gw_parse_ethernet(&cursor, &ethernet) < 0)
		return 0;
#pragma clang loop unroll(full)
	for (int i = 0; i < ETH_ALEN; i++)
		differs |= ethernet->h_dest[i] ^ port->mac[i];
	return !differs;
}

static __always_inline int gw_may_be_fragmented(struct xdp_md *ctx, const struct gw_flow *flow)
{
	struct gw_cursor cursor = gw_cursor_at(ctx, flow->l3_offset);
	struct iphdr *ip = cursor.at;

	return flow->family == 4 && (void *)(ip + 1) <= cursor.end &&
	       !(ip->frag_off & bpf_htons(0x4000));
}

/* May an error be sent about this packet (RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e))? */
static __always_inline int gw_may_answer(const struct gw_flow *flow, const struct gw_port *port)
{
	const union gw_address *from = flow->family == 4 ? &port->address4 : &port->address6;
	__u64 now_ns = bpf_ktime_get_ns();
	__u32 key = 0;
	__u64 *due_ns = bpf_map_lookup_elem(&gw_errors, &key);

	if (!from->words_be[3] || gw_is_icmp_error(flow) || flow->fragment == GW_FRAGMENT_LATER ||
	    !gw_is_one_host(flow->family, &flow->source))
		return 0;
	return due_ns && gw_is_within_rate(due_ns, now_ns, gw_error_interval_ns, 0);
}

static __always_inline int gw_too_big(struct xdp_md *ctx, const struct gw_flow *flow,
				      const struct gw_port *port, __u32 mtu)
{
	int failed;

	if (gw_may_be_fragmented(ctx, flow))
		return gw_pass(ctx, GW_EXIT_NEEDS_FRAGMENTS);
	if (!gw_may_answer(flow, port))
		return gw_drop(ctx, GW_DROP_TOO_BIG);
	failed = flow->family == 4 ? gw_answer_too_big4(ctx, flow, port, mtu)
				   : gw_answer_too_big6(ctx, flow, port, mtu);
	return gw_exit(ctx, GW_DROP_TOO_BIG, failed ? XDP_DROP : XDP_TX);
}

static __always_inline int gw_is_leased(void)
{
	__u32 key = 0;
	__u64 *until_ns = bpf_map_lookup_elem(&gw_lease, &key);

	return until_ns && bpf_ktime_get_ns() < *until_ns;
}

/* Send it to its next hop, with an MSS that fits into `mss_mtu`, and end for that reason. */
static __always_inline int gw_send_to(struct xdp_md *ctx, struct gw_flow *flow,
				      const struct gw_next_hop *found, __u32 mss_mtu,
				      enum gw_exit reason)
{
	struct gw_next_hop hop = *found;
	int verdict;

	gw_clamp_mss(ctx, flow, mss_mtu);
	if (gw_count_hop(ctx, flow) || gw_rewrite_link(ctx, flow, &hop))
		return gw_drop(ctx, GW_DROP_SEND_FAILED);
	verdict = bpf_redirect_map(&gw_devices, hop.ifindex, XDP_DROP);
	if (verdict != XDP_REDIRECT)
		return gw_drop(ctx, GW_DROP_SEND_FAILED);
	return gw_exit(ctx, reason, verdict);
}

/* To the NIC that has the SA, if the kernel still says so. */
static __always_inline int gw_to_device(struct xdp_md *ctx, struct gw_flow *flow,
					const struct gw_port *port, __u32 number)
{
	struct gw_offloaded_sa *sa = bpf_map_lookup_elem(&gw_offloaded_sas, &number);

	if (!sa || !gw_kernel_has_sa(ctx, &sa->destination, sa->spi_be, sa->family))
		return gw_pass(ctx, GW_EXIT_SA_GONE);
	if (flow->l3_bytes > sa->hop.mtu)
		return gw_too_big(ctx, flow, port, sa->hop.mtu);
	return gw_send_to(ctx, flow, &sa->hop, sa->hop.mtu, GW_EXIT_FORWARDED);
}

/* From the NIC that decrypted it, if it came by that one, and the kernel still says so. */
static __always_inline int gw_to_lan(struct xdp_md *ctx, struct gw_flow *flow, __u32 number)
{
	struct gw_inbound_nic_sa *sa = bpf_map_lookup_elem(&gw_inbound_sas, &number);
	struct gw_next_hop *found;
	__u32 mss_mtu;

	if (sa && sa->ifindex != ctx->ingress_ifindex)
		return gw_pass(ctx, GW_EXIT_STACK_PROTECTS);
	if (!sa || !gw_kernel_has_sa(ctx, &sa->destination, sa->spi_be, sa->family))
		return gw_pass(ctx, GW_EXIT_SA_GONE);
	found = gw_find_next_hop(flow);
	if (!found || !found->ifindex)
		return gw_pass(ctx, GW_EXIT_NO_NEXT_HOP);
	/* An answer of ours would leave in clear: the stack protects its own. */
	if (flow->l3_bytes > found->mtu)
		return gw_pass(ctx, GW_EXIT_NEEDS_FRAGMENTS);
	/* What answers a SYN goes back through the tunnel. */
	mss_mtu = sa->mtu && sa->mtu < found->mtu ? sa->mtu : found->mtu;
	return gw_send_to(ctx, flow, found, mss_mtu, GW_EXIT_FORWARDED_IN);
}

/* What the SPD says of a packet that both sides of the gateway could forward. */
static __always_inline int gw_by_policy(struct xdp_md *ctx, struct gw_flow *flow,
					const struct gw_port *port)
{
	int is_outbound = port->side == GW_SIDE_LAN;
	struct gw_decision decision =
		is_outbound ? gw_decide(flow, GW_OUTBOUND) : gw_decide(flow, GW_INBOUND);

	switch (decision.action) {
	case GW_ACTION_PROTECT:
		if (!decision.sa)
			return gw_pass(ctx, GW_EXIT_STACK_PROTECTS);
		if (!gw_is_leased())
			return gw_pass(ctx, GW_EXIT_LEASE_OVER);
		return is_outbound ? gw_to_device(ctx, flow, port, decision.sa)
				   : gw_to_lan(ctx, flow, decision.sa);
	case GW_ACTION_DISCARD:
		return gw_drop(ctx, GW_DROP_POLICY_DISCARD);
	case GW_ACTION_BYPASS:
		return gw_pass(ctx, GW_EXIT_BYPASS);
	case GW_ACTION_UNDECIDED:
		return gw_pass(ctx, GW_EXIT_UNDECIDED);
	default:
		return gw_pass(ctx, GW_EXIT_NO_ENTRY);
	}
}

SEC("xdp")
int gw_forward(struct xdp_md *ctx)
{
	struct gw_port_key key = {.ifindex = ctx->ingress_ifindex};
	struct gw_flow *flow = gw_new_flow();
	struct gw_carrier carrier = {};
	struct gw_cursor cursor;
	struct gw_port *port;
	int verdict;

	if (!flow)
		return XDP_ABORTED;
	verdict = gw_begin(ctx, &cursor, flow);
	if (verdict != GW_GO_ON)
		return verdict;
	key.vlan_id = flow->vlan_id;
	port = bpf_map_lookup_elem(&gw_ports, &key);
	if (!port || !gw_is_ours(ctx, port))
		return gw_pass(ctx, GW_EXIT_NOT_OURS);
	if (gw_is_link_icmpv6(flow) || gw_stays_on_link(flow->family, &flow->destination))
		return gw_pass(ctx, GW_EXIT_LINK_LOCAL);
	if (gw_is_local(&flow->destination))
		return gw_pass(ctx, GW_EXIT_NOT_OURS);
	if (port->side == GW_SIDE_OFFLOAD && !flow->fragment &&
	    gw_classify(&cursor, flow, &carrier) != GW_CARRIED_OTHER)
		return gw_pass(ctx, GW_EXIT_IPSEC);
	/* NICs find no policy for fragments, and would send them in clear. */
	if (flow->has_options || flow->vlans > 1 || flow->fragment)
		return gw_pass(ctx, GW_EXIT_NOT_PLAIN);
	if (flow->ttl <= 1)
		return gw_pass(ctx, GW_EXIT_TTL);
	return gw_by_policy(ctx, flow, port);
}

char gw_licence[] SEC("license") = "Dual BSD/GPL";
