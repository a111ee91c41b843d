/* SPDX-License-Identifier: Apache-2.0 */
/* Where packets go once they are sealed, opened, or free to pass. */
#ifndef GW_FORWARD_H
#define GW_FORWARD_H

#include "thread.h"

/**
 * gw_send_protected() - send an ESP or AH packet to its peer.
 * @thread: the caller's.
 * @packet: from the outer IP header on.
 */
void gw_send_protected(struct gw_thread *thread, struct gw_packet *packet);

/**
 * gw_deliver() - forward a packet that was opened, as a router does, or give it to the kernel.
 * @thread: the caller's.
 * @packet: an IP packet.
 * @device: of the tunnel whose SA opened it: it goes out there, unless the device is GW_DEVICE_ROUTED
 *          and the routes lead to a next hop or another tunnel; 0: where the routes say. What may not
 *          leave in clear there is the kernel's, whose guard drops what should be protected.
 */
void gw_deliver(struct gw_thread *thread, struct gw_packet *packet, uint32_t device);

/**
 * gw_may_leave() - say whether a packet in clear may go where the routes lead: to the kernel, whose guard
 *                  looks, or to our side; out of an interface to the peers only what the SPD lets pass.
 * @thread: the caller's.
 * @packet: an IP packet.
 */
bool gw_may_leave(struct gw_thread *thread, const struct gw_packet *packet);

/**
 * gw_send_clear() - send a packet that needs no protection: BYPASS, or an ICMP error of ours.
 * @thread: the caller's.
 * @packet: an IP packet.
 */
void gw_send_clear(struct gw_thread *thread, struct gw_packet *packet);

/**
 * gw_count_hop() - take one from TTL or hop limit.
 * @packet: an IP packet.
 *
 * Return: false where it has run out; the packet is as it was.
 */
bool gw_count_hop(struct gw_packet *packet);

#endif
