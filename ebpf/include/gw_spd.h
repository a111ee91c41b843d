/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The SPD as XDP sees it (RFC 4301 section 4.4.1): the remote address gives a class, class and
 * local address give a leaf, and a leaf says what happens or has a short list of rules with
 * protocols and ports.
 *
 * The agent compiles the ordered SPD into these maps (gateway/host/bpf/spd.py) so that each leaf
 * holds, in order, all that can match its addresses. Each SPD is a generation, beside the one in
 * force: everything of it is there before one store to gw_spd_generation puts it in force, so that
 * every packet sees the old SPD or the new one, never a mixture.
 *
 * The two searches cost about 60 ns where there are thousands of prefixes. So each CPU remembers
 * the leaves of pairs of addresses; a new generation forgets them all.
 */
#ifndef GW_SPD_H
#define GW_SPD_H

#include "gw_parse.h"

#define GW_SPD_MAP(name, key_type, value_type, entries) \
	struct { \
		__uint(type, BPF_MAP_TYPE_LPM_TRIE); \
		__type(key, key_type); \
		__type(value, value_type); \
		__uint(max_entries, entries); \
		__uint(map_flags, BPF_F_NO_PREALLOC); \
	} name SEC(".maps")

/* Room for two generations. */
GW_SPD_MAP(gw_spd_remote4, struct gw_numbered_prefix4, struct gw_remote_class, 131072);
GW_SPD_MAP(gw_spd_remote6, struct gw_numbered_prefix6, struct gw_remote_class, 131072);
GW_SPD_MAP(gw_spd_local4, struct gw_numbered_prefix4, struct gw_spd_leaf, 524288);
GW_SPD_MAP(gw_spd_local6, struct gw_numbered_prefix6, struct gw_spd_leaf, 524288);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct gw_spd_rule);
	__uint(max_entries, 65536);
} gw_spd_rules SEC(".maps");

/* Which SPD is in force. Mapped by the agent, whose store of a word a program sees whole. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
} gw_spd_generation SEC(".maps");

/* Set to 0 to measure the searches. */
const volatile __u32 gw_remembers_leaves = 1;

#define GW_REMEMBERED_BITS 12

struct gw_remembered_leaf {
	union gw_address local;
	union gw_address remote;
	__u32 generation;
	struct gw_spd_leaf leaf;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct gw_remembered_leaf);
	__uint(max_entries, 1 << GW_REMEMBERED_BITS);
} gw_spd_remembered SEC(".maps");

struct gw_decision {
	__u8 action;       /* enum gw_action */
	__u8 is_ambiguous; /* it depends on ports or a protocol that a fragment hides */
	__u32 sa;          /* of PROTECT: the SA of a NIC in this direction; 0: none */
};

/* Which side of a packet is the local one: always a constant, so that the compiler chooses. */
enum gw_direction {
	GW_OUTBOUND,
	GW_INBOUND
};

static __always_inline const union gw_address *gw_local_of(const struct gw_flow *flow,
							   enum gw_direction direction)
{
	return direction == GW_OUTBOUND ? &flow->source : &flow->destination;
}

static __always_inline const union gw_address *gw_remote_of(const struct gw_flow *flow,
							    enum gw_direction direction)
{
	return direction == GW_OUTBOUND ? &flow->destination : &flow->source;
}

/*
 * Search for the leaf; NULL without a class. A class without a leaf cannot be: were it so,
 * `decision` discards.
 */
static __always_inline struct gw_spd_leaf *gw_search_leaf4(const union gw_address *local,
							   const union gw_address *remote,
							   __u32 generation,
							   struct gw_spd_leaf *without)
{
	struct gw_numbered_prefix4 key = {
		.prefix_bits = 64,
		.number_be = bpf_htonl(generation),
		.address_be = remote->words_be[3],
	};
	struct gw_remote_class *found = bpf_map_lookup_elem(&gw_spd_remote4, &key);

	if (!found)
		return NULL;
	without->action = GW_ACTION_DISCARD;
	key.number_be = found->remote_class_be;
	key.address_be = local->words_be[3];
	return bpf_map_lookup_elem(&gw_spd_local4, &key);
}

static __always_inline struct gw_spd_leaf *gw_search_leaf6(const union gw_address *local,
							   const union gw_address *remote,
							   __u32 generation,
							   struct gw_spd_leaf *without)
{
	struct gw_numbered_prefix6 key = {
		.prefix_bits = 160,
		.number_be = bpf_htonl(generation),
	};
	struct gw_remote_class *found;

	__builtin_memcpy(key.address, remote, 16);
	found = bpf_map_lookup_elem(&gw_spd_remote6, &key);
	if (!found)
		return NULL;
	without->action = GW_ACTION_DISCARD;
	key.number_be = found->remote_class_be;
	__builtin_memcpy(key.address, local, 16);
	return bpf_map_lookup_elem(&gw_spd_local6, &key);
}

/* Where a pair of addresses is remembered. Half of IPv4's octets are the same in each of them. */
static __always_inline __u32 gw_place_of(const union gw_address *local,
					 const union gw_address *remote)
{
	__u64 mixed = (local->halves[1] ^ local->halves[0]) * 0x9e3779b97f4a7c15ULL;

	mixed = (mixed ^ mixed >> 32 ^ remote->halves[1] ^ remote->halves[0] << 1) *
		0xc2b2ae3d27d4eb4fULL;
	return mixed >> (64 - GW_REMEMBERED_BITS);
}

/*
 * Return the leaf of a packet: what this CPU remembers, or what it finds. Without any, the leaf has
 * no rules and no action.
 */
static __always_inline struct gw_spd_leaf gw_find_leaf(const struct gw_flow *flow,
						       enum gw_direction direction)
{
	const union gw_address *local = gw_local_of(flow, direction);
	const union gw_address *remote = gw_remote_of(flow, direction);
	struct gw_remembered_leaf *remembered;
	struct gw_spd_leaf leaf = {}, *found;
	__u32 place = gw_place_of(local, remote), key = 0, *current;

	current = bpf_map_lookup_elem(&gw_spd_generation, &key);
	remembered = bpf_map_lookup_elem(&gw_spd_remembered, &place);
	if (!current || !remembered) { /* cannot be */
		leaf.action = GW_ACTION_DISCARD;
		return leaf;
	}
	key = *current;
	if (gw_remembers_leaves && remembered->generation == key &&
	    gw_same_address(&remembered->local, local) &&
	    gw_same_address(&remembered->remote, remote))
		return remembered->leaf;
	found = flow->family == 4 ? gw_search_leaf4(local, remote, key, &leaf)
				  : gw_search_leaf6(local, remote, key, &leaf);
	if (found)
		leaf = *found;
	remembered->local = *local;
	remembered->remote = *remote;
	remembered->generation = key;
	remembered->leaf = leaf;
	return leaf;
}

/*
 * How a rule and a packet agree. Both are 0 or 1, and computed without branches: the verifier
 * follows every branch of each of the rules, and would not come to an end.
 */
struct gw_match {
	__u32 differs;
	__u32 depends; /* on what a fragment hides */
};

static __always_inline __u32 gw_is_negative(__u32 number)
{
	return number >> 31;
}

static __always_inline __u32 gw_is_nonzero(__u32 number)
{
	return gw_is_negative(-number); /* of numbers below 2^31 */
}

/* Compare one side's port. OPAQUE, first > last, is for what has no port or hides it (RFC 4301
 * section 4.4.1.1). */
static __always_inline struct gw_match gw_match_port(__u32 first, __u32 last, __u32 port,
						     const struct gw_flow *flow)
{
	__u32 outside = gw_is_negative(port - first) | gw_is_negative(last - port);
	__u32 is_opaque = gw_is_negative(last - first);
	__u32 wants_port = gw_is_nonzero(first | (65535 - last)) & (is_opaque ^ 1);
	__u32 has_port = flow->has_ports,
	      hides_port = flow->fragment >> 1; /* of a later fragment */
	struct gw_match match = {
		.differs = (has_port & outside) | ((has_port ^ 1) & (hides_port ^ 1) & wants_port),
		.depends = hides_port & wants_port,
	};

	return match;
}

static __always_inline struct gw_match gw_match_rule(const struct gw_spd_rule *rule,
						     const struct gw_flow *flow,
						     enum gw_direction direction)
{
	__u32 local_port = direction == GW_OUTBOUND ? flow->source_port : flow->destination_port;
	__u32 remote_port = direction == GW_OUTBOUND ? flow->destination_port : flow->source_port;
	__u32 protocol = flow->protocol, hides_protocol = protocol >> 8; /* GW_PROTOCOL_HIDDEN */
	__u32 differs = gw_is_nonzero(rule->protocol) & gw_is_nonzero(rule->protocol ^ protocol);
	struct gw_match local, remote, match;

	local = gw_match_port(rule->local_first, rule->local_last, local_port, flow);
	remote = gw_match_port(rule->remote_first, rule->remote_last, remote_port, flow);
	match.differs = local.differs | remote.differs | (differs & (hides_protocol ^ 1));
	match.depends = local.depends | remote.depends | (differs & hides_protocol);
	return match;
}

_Static_assert(GW_FRAGMENT_LATER == 2 && GW_PROTOCOL_HIDDEN == 256, "gw_match_* count on it");

/*
 * Return what the SPD says. Where a fragment hides what a rule wants to see, a rule that is no
 * BYPASS takes it, and the decision is marked: protected or dropped, it does not leave in clear.
 *
 * `flow` must be in a map (gw_new_flow).
 */
static __always_inline struct gw_decision gw_decide(const struct gw_flow *flow,
						    enum gw_direction direction)
{
	struct gw_spd_leaf leaf = gw_find_leaf(flow, direction);
	struct gw_decision decision = {
		.action = leaf.action,
		.sa = direction == GW_OUTBOUND ? leaf.offloaded_sa : leaf.inbound_sa,
	};
	__u32 first_rule = leaf.first_rule, rule_count = leaf.rule_count;

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < GW_SPD_LEAF_RULES && i < rule_count; i++) {
		__u32 index = first_rule + i;
		struct gw_spd_rule *rule = bpf_map_lookup_elem(&gw_spd_rules, &index);
		struct gw_match match;

		if (!rule) {
			decision.action =
				GW_ACTION_DISCARD; /* cannot be; were it so, nothing leaves */
			break;
		}
		barrier(); /* read the flow anew, so that no round knows what those before learned
			    */
		match = gw_match_rule(rule, flow, direction);
		if (match.differs || (match.depends && rule->action == GW_ACTION_BYPASS))
			continue;
		decision.action = rule->action;
		decision.sa = direction == GW_OUTBOUND ? rule->offloaded_sa : rule->inbound_sa;
		decision.is_ambiguous = match.depends;
		break;
	}
	return decision;
}

#endif
