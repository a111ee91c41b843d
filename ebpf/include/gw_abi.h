/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * THE ABI: keys and values of every map, and the numbers in them.
 *
 * The other side is gateway/host/bpf/abi.py, which is compared with this file through BTF when an
 * object is loaded. Fields whose names end in _be are in network byte order, all others in the
 * host's. An address has 16 octets; IPv4 is written as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2).
 */
#ifndef GW_ABI_H
#define GW_ABI_H

#include <linux/types.h>

#include "gw_drop_reasons.h"

#define GW_ABI_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type " has another size")

/* --- how a program ends ----------------------------------------------------------------------- */

/*
 * Ends that are no drops, in three groups: the frame goes on to the stack, to the engine's socket,
 * or out of an interface. Their numbers follow GW_EXIT_FIRST; below it stand the drop reasons.
 */
#define GW_EXITS(X) \
	X(NOT_IP, "not_ip") \
	X(LINK_LOCAL, "link_local") \
	X(IKE, "ike") \
	X(KEEPALIVE, "keepalive") \
	X(LOCAL_FRAGMENT, "local_fragment") \
	X(ICMP_ERROR, "icmp_error") \
	X(STACK_SA, "stack_sa") \
	X(STRANGE_SPI, "strange_spi") \
	X(BYPASS, "bypass") \
	X(NO_ENTRY, "no_entry") \
	X(STACK_PROTECTS, "stack_protects") \
	X(NOT_OURS, "not_ours") \
	X(NOT_PLAIN, "not_plain") \
	X(TTL, "ttl") \
	X(NEEDS_FRAGMENTS, "needs_fragments") \
	X(NO_NEXT_HOP, "no_next_hop") \
	X(IPSEC, "ipsec") \
	X(ENGINE, "engine") \
	X(FORWARDED, "forwarded") \
	X(STEERED, "steered") \
	X(OTHER, "other") \
	X(SA_GONE, "sa_gone") \
	X(LEASE_OVER, "lease_over") \
	X(UNDECIDED, "undecided") \
	X(FORWARDED_IN, "forwarded_in")

#define GW_EXIT_FIRST   64
#define GW_EXIT_ENTRIES 128

#define GW_EXIT_NUMBER(name, text) GW_EXIT_##name,
#define GW_EXIT_DROP(name, text)   GW_EXIT_DROP_##name = GW_DROP_##name,
enum gw_exit {
	GW_DROP_REASONS(GW_EXIT_DROP) GW_EXIT_BEFORE_FIRST = GW_EXIT_FIRST - 1,
	GW_EXITS(GW_EXIT_NUMBER) GW_EXIT_COUNT,
};
#undef GW_EXIT_NUMBER
#undef GW_EXIT_DROP

_Static_assert(GW_DROP_REASON_COUNT <= GW_EXIT_FIRST, "drop reasons and other ends overlap");
_Static_assert(GW_EXIT_COUNT <= GW_EXIT_ENTRIES, "gw_stats is too short");

/* Value of gw_stats, for each CPU. */
struct gw_counter {
	__u64 packets;
	__u64 bytes;
};
GW_ABI_SIZE(struct gw_counter, 16);

/* --- addresses and SAs ------------------------------------------------------------------------ */

union gw_address {
	__u8 octets[16];
	__be32 words_be[4];
	__u64 halves[2];
};
GW_ABI_SIZE(union gw_address, 16);

struct gw_spi_key {
	__be32 spi_be;
};
GW_ABI_SIZE(struct gw_spi_key, 4);

enum gw_owner {
	GW_OWNER_ENGINE, /* packets go to the AF_XDP socket of their queue */
	GW_OWNER_STACK,  /* the kernel or a socket behind it has the SA */
};

/* Value of gw_sas: one inbound SA. SPIs are unique in an agent, whatever the protocol. */
struct gw_inbound_sa {
	union gw_address destination;
	__u32 protocol; /* 50 or 51 */
	__u32 owner;    /* enum gw_owner */
};
GW_ABI_SIZE(struct gw_inbound_sa, 24);

/* --- the SPD: two longest-prefix matches, then a short list of rules ---------------------------
 */

enum gw_action {
	GW_ACTION_NONE, /* no entry of the SPD matches */
	GW_ACTION_PROTECT,
	GW_ACTION_BYPASS,
	GW_ACTION_DISCARD,
	GW_ACTION_UNDECIDED, /* more rules hold than a leaf has: the stack and the engine decide */
};

/* Key of gw_next_hops4 and gw_next_hops6. */
struct gw_prefix4 {
	__u32 prefix_bits;
	__be32 address_be;
};
GW_ABI_SIZE(struct gw_prefix4, 8);

struct gw_prefix6 {
	__u32 prefix_bits;
	__u8 address[16];
};
GW_ABI_SIZE(struct gw_prefix6, 20);

/*
 * Keys of both stages. First, gw_spd_remote4 and gw_spd_remote6: the number is the generation, the
 * address the remote one, and the value its class. Second, gw_spd_local4 and gw_spd_local6: that
 * class, the local address, and a leaf.
 */
struct gw_numbered_prefix4 {
	__u32 prefix_bits; /* 32 of the number, and those of the address */
	__be32 number_be;
	__be32 address_be;
};
GW_ABI_SIZE(struct gw_numbered_prefix4, 12);

struct gw_numbered_prefix6 {
	__u32 prefix_bits;
	__be32 number_be;
	__u8 address[16];
};
GW_ABI_SIZE(struct gw_numbered_prefix6, 24);

struct gw_remote_class {
	__be32 remote_class_be;
};
GW_ABI_SIZE(struct gw_remote_class, 4);

#define GW_SPD_LEAF_RULES 32

/* What holds for these addresses: rules [first_rule, first_rule + rule_count) in order, then
 * `action`. */
struct gw_spd_leaf {
	__u32 first_rule;
	__u16 rule_count; /* at most GW_SPD_LEAF_RULES */
	__u8 action;      /* enum gw_action */
	__u8 padding;
	__u32 offloaded_sa; /* of PROTECT: key of gw_offloaded_sas, for what goes out; 0: none */
	__u32 inbound_sa;   /* of PROTECT: key of gw_inbound_sas, for what comes in; 0: none */
};
GW_ABI_SIZE(struct gw_spd_leaf, 16);

/* Value of gw_spd_rules. Ports are inclusive; first 65535 and last 0 is OPAQUE (RFC 7296
 * section 3.13.1). */
struct gw_spd_rule {
	__u16 local_first;
	__u16 local_last;
	__u16 remote_first;
	__u16 remote_last;
	__u8 protocol; /* 0: any */
	__u8 action;   /* enum gw_action */
	__u16 padding;
	__u32 offloaded_sa; /* as of a leaf */
	__u32 inbound_sa;
};
GW_ABI_SIZE(struct gw_spd_rule, 20);

/* --- events ------------------------------------------------------------------------------------
 */

/* Record of gw_events: a packet with an SPI that no SA has. A sample: `suppressed` others came
 * since the last. */
struct gw_event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	union gw_address source;
	union gw_address destination;
	__be32 spi_be;
	__u32 protocol; /* 50 or 51 */
	__u32 ifindex;
	__u32 suppressed;
};
GW_ABI_SIZE(struct gw_event, 56);

/* --- forwarding beside packet offload ----------------------------------------------------------
 */

enum gw_side {
	GW_SIDE_LAN,     /* plaintext comes in here and is to be protected */
	GW_SIDE_OFFLOAD, /* the NIC has decrypted what comes in here */
};

/* Key of gw_ports: an interface of ours, or one VLAN on it. */
struct gw_port_key {
	__u32 ifindex;
	__u16 vlan_id; /* 0: untagged */
	__u16 padding;
};
GW_ABI_SIZE(struct gw_port_key, 8);

struct gw_port {
	union gw_address address4; /* source of our ICMP errors; all zero: none are sent */
	union gw_address address6;
	__u8 mac[6];
	__u16 side; /* enum gw_side */
};
GW_ABI_SIZE(struct gw_port, 40);

/* Where a packet goes; value of gw_next_hops4 and gw_next_hops6. */
struct gw_next_hop {
	__u32 ifindex; /* 0: where the stack sends it */
	__u32 mtu;     /* the largest IP packet that fits, with what ESP will add taken off */
	__u8 destination_mac[6];
	__u8 source_mac[6];
	__u16 vlan_id; /* 0: untagged */
	__u16 padding;
};
GW_ABI_SIZE(struct gw_next_hop, 24);

/*
 * Value of gw_offloaded_sas: an outbound SA that a NIC encrypts for. The hop is that of the packets
 * as the NIC sends them, so it leads towards the outer destination, out of that NIC and no other.
 */
struct gw_offloaded_sa {
	union gw_address destination; /* of the SA, with which the kernel knows it */
	__be32 spi_be;
	__u32 family; /* of the destination: 4 or 6 */
	struct gw_next_hop hop;
};
GW_ABI_SIZE(struct gw_offloaded_sa, 48);

/* Value of gw_inbound_sas: an SA by which a NIC decrypts that lets nothing in in clear. */
struct gw_inbound_nic_sa {
	union gw_address destination; /* as of gw_offloaded_sa: an address of ours */
	__be32 spi_be;
	__u32 family;
	__u32 ifindex; /* of the NIC */
	__u32 mtu;     /* of the way back through the tunnel, for the MSS of a SYN; 0: not known */
};
GW_ABI_SIZE(struct gw_inbound_nic_sa, 32);

/* --- steering over CPUs ----------------------------------------------------------------------- */

/* Value of gw_cpus (struct bpf_cpumap_val): how many frames may wait for this CPU. */
struct gw_cpu_queue {
	__u32 frames;
	__u32 program_fd; /* 0: none runs there */
};
GW_ABI_SIZE(struct gw_cpu_queue, 8);

#endif
