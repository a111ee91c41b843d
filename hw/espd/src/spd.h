/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SPD: entries in the order in which they are searched, the first match wins (RFC 4301
 * §4.4.1). One is built whole and published whole; threads only read it.
 */
#ifndef GW_SPD_H
#define GW_SPD_H

#include "flow.h"
#include "gw_control.h"

struct gw_spd_entry {
	uint64_t order;
	uint32_t policy; /* the agent's name of it */
	uint32_t tunnel; /* from 1; of PROTECT */
	uint32_t device; /* 0: for all packets but those of devices with entries of their own */
	uint8_t action;  /* enum gw_policy_action */
	bool acquires;
	struct gw_selector_set selectors; /* refers into this struct: entries never move */
};

struct gw_spd {
	uint32_t count;
	bool is_scoped[GW_MAX_DEVICES + 1]; /* devices that have entries of their own */
	struct gw_spd_entry *entries;
};

/**
 * gw_spd_build() - make an SPD of entries in any order.
 * @spd: filled in; empty on failure.
 * @policies: as the agent set them, checked.
 * @count: how many.
 *
 * Return: false without memory.
 */
bool gw_spd_build(struct gw_spd *spd, const struct gw_control_policy *const *policies,
		  uint32_t count);

/**
 * gw_spd_clear() - free its memory.
 * @spd: built, or all zero.
 */
void gw_spd_clear(struct gw_spd *spd);

/**
 * gw_spd_outbound() - find the entry of a packet from our side to the peer's.
 * @spd: built.
 * @flow: of the packet.
 * @device: where it came from.
 *
 * Return: the entry, or NULL.
 */
const struct gw_spd_entry *gw_spd_outbound(const struct gw_spd *spd, const struct gw_flow *flow,
					   uint32_t device);

/**
 * gw_spd_inbound() - find the entry of a packet from the peer's side to ours (RFC 4301 §5.2).
 * @spd: built.
 * @flow: of the packet.
 * @device: where it came from.
 *
 * Return: the entry, or NULL.
 */
const struct gw_spd_entry *gw_spd_inbound(const struct gw_spd *spd, const struct gw_flow *flow,
					  uint32_t device);

/**
 * gw_flow_reversed() - return the selectors of the answer to a packet.
 * @flow: of the packet.
 */
static inline struct gw_flow gw_flow_reversed(const struct gw_flow *flow)
{
	struct gw_flow reversed = *flow;

	reversed.source = flow->destination;
	reversed.destination = flow->source;
	reversed.source_port = flow->destination_port;
	reversed.destination_port = flow->source_port;
	return reversed;
}

#endif
