/* SPDX-License-Identifier: Apache-2.0 */
/* Packets that come in clear: the SPD says what becomes of them (RFC 4301 §5.1). */
#ifndef GW_OUTBOUND_H
#define GW_OUTBOUND_H

#include "thread.h"

/**
 * gw_outbound() - do with a clear packet what the SPD says.
 * @thread: the caller's.
 * @port: where it came in.
 * @packet: an IP packet; packet.reserved is the device.
 */
void gw_outbound(struct gw_thread *thread, struct gw_port *port, struct gw_packet *packet);

/**
 * gw_decide() - look up what becomes of the packets of a flow.
 * @thread: the caller's.
 * @flow: of a packet from our side to the peer's.
 * @device: where it came from.
 */
struct gw_decision gw_decide(struct gw_thread *thread, const struct gw_flow *flow, uint32_t device);

/**
 * gw_seal_by() - have a packet sealed by the SA that was decided on, here or in its owner's thread.
 * @thread: the caller's.
 * @packet: an IP packet.
 * @decision: its verdict is GW_VERDICT_SEAL.
 */
void gw_seal_by(struct gw_thread *thread, struct gw_packet *packet,
		const struct gw_decision *decision);

/**
 * gw_seal_later() - put a packet into the burst that gw_seal_all seals; in pieces where it is too
 * big and may be fragmented.
 * @thread: the SA's owner.
 * @packet: an IP packet; becomes the burst's.
 * @ref: the SA.
 */
void gw_seal_later(struct gw_thread *thread, struct gw_packet *packet, uint32_t ref);

/**
 * gw_seal_all() - seal the burst and send it.
 * @thread: the caller's.
 */
void gw_seal_all(struct gw_thread *thread);

/**
 * gw_hand_over() - give a packet to the thread that owns its SA.
 * @thread: the caller's.
 * @packet: copied; its frame is returned.
 * @worker: the owner.
 * @ref: of an outbound SA.
 * @inbound: to be opened.
 */
void gw_hand_over(struct gw_thread *thread, struct gw_packet *packet, uint16_t worker, uint32_t ref,
		  bool inbound);

#endif
