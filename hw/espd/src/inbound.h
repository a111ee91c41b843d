/* SPDX-License-Identifier: Apache-2.0 */
/* Packets that come in: what they are, and those that are protected (RFC 4301 §5.2). */
#ifndef GW_INBOUND_H
#define GW_INBOUND_H

#include "thread.h"

/**
 * gw_receive() - begin with a packet that came in.
 * @thread: the caller's.
 * @port: where.
 * @packet: as the method gave it; packet.reserved is the device.
 */
void gw_receive(struct gw_thread *thread, struct gw_port *port, struct gw_packet *packet);

/**
 * gw_open_later() - put a packet into the burst that gw_open_all opens.
 * @thread: owner of the SA.
 * @packet: ESP or AH, from the outer IP header on.
 */
void gw_open_later(struct gw_thread *thread, struct gw_packet *packet);

/**
 * gw_open_all() - open the burst and deliver it.
 * @thread: the caller's.
 */
void gw_open_all(struct gw_thread *thread);

#endif
