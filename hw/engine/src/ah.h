/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Authentication Header (RFC 4302; AES-GMAC: RFC 4543 §4).
 *
 *    0                   1                   2                   3
 *   | Next Header   |  Payload Len  |          RESERVED             | --- fixed part, 12 bytes
 *   |                 Security Parameters Index (SPI)               |
 *   |                    Sequence Number Field                      |
 *   |         [IV of AES-GMAC, 8 bytes]  ICV  [padding]             | --- ends on 4 bytes (IPv4) or
 * 8 (IPv6)
 *
 * While the ICV is computed, the headers before AH stand in the packet as the ICV covers them, with
 * IV and ICV zero, and the true ones in the worker's scratch memory: the payload need not be
 * copied.
 */
#ifndef GW_AH_H
#define GW_AH_H

#include "ip.h"
#include "worker.h"

#define GW_AH_FIXED_BYTES 12u
/* Longer headers before AH are refused: UNSUPPORTED. */
#define GW_AH_MAX_HEADER 512u
/* ipsec-mb hashes at most 2^16 - 2 bytes; four of them are the high half of an ESN. */
#define GW_AH_MAX_BYTES 65530u

/* Where one packet comes in: its headers, as parse_outer of esp_in.c found them. */
struct gw_outer {
	uint32_t header; /* bytes of IP header, with options or extension headers */
	uint32_t head;   /* bytes before ESP or AH: the same, or with UDP */
	uint32_t end;    /* of the IP packet */
	uint8_t protocol;
	uint8_t tos;
	bool udp;
};

/**
 * gw_ah_scratch_bytes() - say how much scratch memory a worker needs.
 */
size_t gw_ah_scratch_bytes(void);

/**
 * gw_ah_bytes() - say how large AH is on packets that we send.
 * @suite: with IV and ICV.
 * @family: 4 or 6.
 */
uint8_t gw_ah_bytes(const struct gw_suite *suite, uint8_t family);

/* Outbound: gw_prepare for AH in each mode. */
enum gw_drop_reason gw_ah_prepare_tunnel(struct gw_worker *worker, struct gw_hot *hot,
					 struct gw_packet *packet, struct gw_op *op);
enum gw_drop_reason gw_ah_prepare_transport(struct gw_worker *worker, struct gw_hot *hot,
					    struct gw_packet *packet, struct gw_op *op);

/**
 * gw_ah_finish() - put the true headers, and an outbound packet's IV, back.
 * @worker: the SA's owner.
 * @packet: whose ICV is computed.
 * @op: of the packet.
 */
void gw_ah_finish(struct gw_worker *worker, struct gw_packet *packet, const struct gw_op *op);

/**
 * gw_ah_check_size() - check the length that AH says it has.
 * @suite: of the SA.
 * @ah: the header, 12 bytes of it at least.
 * @room: bytes from there to the end of the packet.
 * @bytes: written: its size.
 *
 * Return: GW_DROP_NONE or MALFORMED.
 */
enum gw_drop_reason gw_ah_check_size(const struct gw_suite *suite, const uint8_t *ah, uint32_t room,
				     uint32_t *bytes);

/**
 * gw_ah_prepare_open() - describe the operation of an inbound packet whose sequence number may be
 * new.
 * @worker: the SA's owner.
 * @sa: the SA.
 * @packet: that came.
 * @outer: its headers.
 * @op: filled in; op->sequence is set.
 *
 * Return: GW_DROP_NONE; or MALFORMED, UNSUPPORTED or FRAGMENT for the headers before AH.
 */
enum gw_drop_reason gw_ah_prepare_open(struct gw_worker *worker, struct gw_sa *sa,
				       struct gw_packet *packet, const struct gw_outer *outer,
				       struct gw_op *op);

#endif
