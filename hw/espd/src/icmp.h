/* SPDX-License-Identifier: Apache-2.0 */
/* ICMP errors about packets that could not be carried (RFC 792, RFC 1191, RFC 4443). */
#ifndef GW_ICMP_H
#define GW_ICMP_H

#include "thread.h"

enum gw_icmp_error {
	GW_ICMP_UNSPECIFIED = 0,
	GW_ICMP_TOO_BIG,
	GW_ICMP_TIME_EXCEEDED,
};

/* The longest that gw_icmp_write makes. */
#define GW_ICMP_BYTES 1280u

/**
 * gw_icmp_write() - make an error message.
 * @to: GW_ICMP_BYTES.
 * @packet: about which; from its IP header on.
 * @length: bytes of it.
 * @error: which.
 * @mtu: of TOO_BIG; an IPv6 sender is never told less than 1280 (RFC 8200 §5).
 * @source: our address, of the packet's family.
 *
 * Return: size of the IP packet; 0 where none may be sent (RFC 1812 §4.3.2.7, RFC 4443 §2.4 (e)).
 */
uint32_t gw_icmp_write(uint8_t *to, const uint8_t *packet, uint32_t length,
		       enum gw_icmp_error error, uint32_t mtu, const uint8_t source[16]);

/**
 * gw_icmp_to_our_side() - tell the sender of a clear packet.
 * @thread: the caller's.
 * @packet: about which; stays the caller's.
 * @error: which.
 * @mtu: see gw_icmp_write.
 */
void gw_icmp_to_our_side(struct gw_thread *thread, const struct gw_packet *packet,
			 enum gw_icmp_error error, uint32_t mtu);

/**
 * gw_icmp_to_peer() - tell the sender of a packet that was opened: only through its tunnel.
 * @thread: the caller's.
 * @packet: about which; stays the caller's.
 * @error: which.
 * @mtu: see gw_icmp_write.
 * @device: where the packet should have left: its address is ours in the message.
 * @tunnel: the device whose SA opened it; 0: one of no device.
 */
void gw_icmp_to_peer(struct gw_thread *thread, const struct gw_packet *packet,
		     enum gw_icmp_error error, uint32_t mtu, uint32_t device, uint32_t tunnel);

#endif
