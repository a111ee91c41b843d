/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transport mode: where ESP or AH goes into an IP packet, and how the packet is made whole again
 * (RFC 4303 §3.1.1, RFC 4302 §3.1.1).
 *
 *   IPv4:  | IP, options | ESP | TCP | data | trailer | ICV |
 *   IPv6:  | IP | hop-by-hop, destination*, routing | ESP | destination | TCP | data | trailer |
 * ICV |
 *
 * Destination options go outside only where a routing header follows (*: they are for the hops on
 * the way).
 */
#ifndef GW_TRANSPORT_H
#define GW_TRANSPORT_H

#include "worker.h"

struct gw_split {
	uint32_t header;     /* bytes that stay outside */
	uint32_t next_field; /* where the protocol of what follows them is named */
	uint8_t next_header; /* that protocol */
};

/**
 * gw_split_packet() - find where ESP or AH goes.
 * @packet: a whole IP packet.
 * @length: bytes there are.
 * @split: filled in.
 *
 * Return: GW_DROP_NONE, MALFORMED, or FRAGMENT: transport mode takes whole datagrams only.
 */
enum gw_drop_reason gw_split_packet(const uint8_t *packet, uint32_t length, struct gw_split *split);

/**
 * gw_set_payload() - make lengths, protocol and checksum of an IP header fit what follows it now.
 * @ip: IP header, with options or extension headers.
 * @header: their bytes.
 * @next_field: where the protocol is named (gw_split.next_field); not read for IPv4.
 * @protocol: of what follows.
 * @length: of the whole packet, at most 65535 (IPv4) or 65575 (IPv6).
 */
void gw_set_payload(uint8_t *ip, uint32_t header, uint32_t next_field, uint8_t protocol,
		    uint32_t length);

/**
 * gw_last_next_field() - find where the last header of an IPv6 chain names its follower.
 * @ip: IPv6 header and extension headers.
 * @header: their bytes.
 *
 * Return: an offset; 0 where the chain does not end there.
 */
uint32_t gw_last_next_field(const uint8_t *ip, uint32_t header);

/**
 * gw_fix_transport_checksum() - compute TCP's or UDP's checksum anew, after a NAT changed the
 * addresses.
 * @packet: a whole IP packet.
 * @length: of it.
 * @protocol: of the transport header.
 * @header: bytes before that.
 *
 * Of the choices of RFC 3948 §3.1.2 this needs neither the peer's original address nor a promise
 * from TCP. An absent UDP checksum stays absent.
 */
void gw_fix_transport_checksum(uint8_t *packet, uint32_t length, uint8_t protocol, uint32_t header);

#endif
