/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SAs and packets that the tests share. Every packet lies in memory of its exact size, for the
 * sanitizer.
 */
#ifndef GW_SAMPLES_H
#define GW_SAMPLES_H

#include <stdlib.h>
#include <string.h>

#include "crypto.h"
#include "gw_engine.h"
#include "ip.h"

struct sample {
	uint8_t *memory;
	struct gw_packet packet;
};

static inline struct gw_worker *sample_worker(void)
{
	struct gw_worker_config config = {
		.inbound_bits = 6,
		.outbound_sas = 8,
		.tunnels = 2,
		.seed = {42},
	};
	enum gw_error error;

	return gw_worker_new(&config, &error);
}

static inline void any_selectors(struct gw_sa_params *params)
{
	params->local_selectors = params->remote_selectors = 2;
	for (int i = 0; i < 4; i++) {
		params->selectors[i] = (struct gw_selector){
			.end_port = UINT16_MAX,
			.family = i % 2 ? 6 : 4,
		};
		memset(params->selectors[i].end, 0xff, 16);
	}
}

/* An SA between 192.0.2.1 and .2, or 2001:db8::1 and ::2, with keys that its numbers make. */
static inline struct gw_sa_params sample_sa(enum gw_direction direction, uint8_t protocol,
					    uint16_t encryption, uint16_t integrity,
					    uint16_t key_bits)
{
	struct gw_sa_params params = {
		.spi = 0x10000001,
		.direction = (uint8_t)direction,
		.protocol = protocol,
		.family = 4,
		.source = {192, 0, 2, 1},
		.destination = {192, 0, 2, 2},
		.encryption = encryption,
		.integrity = integrity,
		.key_bits = key_bits,
		.replay_window = 64,
		.copy_dscp = 1,
		.soft_packets = GW_NEVER,
		.hard_packets = GW_NEVER,
		.soft_bytes = GW_NEVER,
		.hard_bytes = GW_NEVER,
		.next_sequence = 1,
		.sequence_limit = GW_NEVER,
	};
	struct gw_suite suite = {0};

	if (gw_suite_find(protocol, encryption, integrity, key_bits, &suite) != GW_OK)
		return params;
	params.encryption_key_bytes =
		(uint16_t)(suite.key_bytes + (suite.mac == GW_MAC_GMAC ? 0 : suite.salt_bytes));
	params.integrity_key_bytes =
		(uint16_t)(suite.mac_key_bytes + (suite.mac == GW_MAC_GMAC ? suite.salt_bytes : 0));
	for (size_t i = 0; i < sizeof(params.encryption_key); i++)
		params.encryption_key[i] = (uint8_t)(i * 7 + encryption);
	for (size_t i = 0; i < sizeof(params.integrity_key); i++)
		params.integrity_key[i] = (uint8_t)(i * 11 + integrity);
	any_selectors(&params);
	return params;
}

static inline void over_ipv6(struct gw_sa_params *params)
{
	static const uint8_t prefix[16] = {0x20, 0x01, 0x0d, 0xb8};

	params->family = 6;
	memcpy(params->source, prefix, 16);
	memcpy(params->destination, prefix, 16);
	params->source[15] = 1;
	params->destination[15] = 2;
}

/* Put bytes, or none yet, where a driver would: with `head` and `tail` around them. */
static inline struct sample sample_of(const uint8_t *bytes, size_t length, size_t head, size_t tail)
{
	struct sample sample = {.memory = malloc(head + length + tail + 1)};

	memset(sample.memory, 0xa5, head + length + tail + 1);
	if (bytes && length)
		memcpy(sample.memory + head, bytes, length);
	sample.packet = (struct gw_packet){
		.data = sample.memory + head,
		.length = (uint32_t)length,
		.headroom = (uint16_t)head,
		.tailroom = (uint16_t)tail,
	};
	return sample;
}

/* An IP packet of the SA's own addresses, so that it goes through either mode. */
static inline size_t ip_packet(uint8_t *to, const struct gw_sa_params *sa, size_t payload)
{
	size_t header = sa->family == 4 ? GW_IPV4_BYTES : GW_IPV6_BYTES;

	memset(to, 0, header);
	for (size_t i = 0; i < payload; i++)
		to[header + i] = (uint8_t)(i * 13);
	if (sa->family == 4) {
		to[0] = 0x45;
		gw_store16(to + 2, (uint16_t)(header + payload));
		to[6] = 0x40; /* or AH gives it an identification */
		to[8] = 64;
		to[9] = 253;
		memcpy(to + 12, sa->source, 4);
		memcpy(to + 16, sa->destination, 4);
		gw_store16(to + 10, (uint16_t)~gw_fold(gw_sum(to, header)));
	} else {
		to[0] = 0x60;
		gw_store16(to + 4, (uint16_t)payload);
		to[6] = 253;
		to[7] = 64;
		memcpy(to + 8, sa->source, 16);
		memcpy(to + 24, sa->destination, 16);
	}
	return header + payload;
}

#endif
