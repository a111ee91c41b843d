/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer target: whatever comes in, gw_open_burst drops it or hands out a packet that lies
 * within its buffer.
 *
 * The first byte chooses what the input becomes: a packet as it is; a packet that is made to find an
 * SA, so that what comes before the ICV is reached; or a payload that is sealed, as an authentic peer
 * with a mind of its own would, so that what lies behind it is reached too.
 */
#include <stdio.h>

#include "../tests/samples.h"
#include "ah.h"
#include "ah_cover.h"

#define PEERS 8

/* Of the first byte, beside the peer in its lowest bits. */
#define SEAL    0x08
#define IN_UDP  0x10
#define FIND_SA 0x20

struct peer {
	struct gw_sa_params params;
	uint32_t outbound;
};

static struct gw_worker *worker;
static struct peer peers[PEERS];

static void add_peer(unsigned int number, uint8_t protocol, uint16_t encryption, uint16_t integrity,
		     uint16_t key_bits)
{
	struct gw_sa_params params =
		sample_sa(GW_INBOUND, protocol, encryption, integrity, key_bits);
	uint32_t ref;

	params.spi = 0x10000000 + number;
	params.index = number;
	params.mode = number & 1;
	params.esn = number >> 1 & 1;
	if (number & 4)
		over_ipv6(&params);
	if (protocol == GW_PROTOCOL_ESP)
		params.udp_source_port = params.udp_destination_port = 4500;
	/* One lets in a port only. */
	if (number == 2)
		params.selectors[0].start_port = params.selectors[0].end_port = 53;
	/* So that no window ends a run: what is to be found is behind it. */
	params.replay_window = params.esn ? 4096 : 0;
	if (gw_sa_add(worker, &params, NULL, &ref) != GW_OK)
		abort();
	params.direction = GW_OUTBOUND;
	if (gw_sa_add(worker, &params, NULL, &peers[number].outbound) != GW_OK)
		abort();
	peers[number].params = params;
}

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
	(void)count;
	(void)arguments;
	worker = sample_worker();
	if (!worker)
		abort();
	add_peer(0, 50, 20, 0, 128);
	add_peer(1, 50, 20, 0, 256);
	add_peer(2, 50, 12, 12, 128);
	add_peer(3, 50, 13, 2, 128);
	add_peer(4, 50, 28, 0, 256);
	add_peer(5, 51, 11, 12, 0);
	add_peer(6, 51, 11, 9, 0);
	add_peer(7, 50, 11, 14, 0);
	return 0;
}

/* An IP header before `bytes` of a protocol, in memory of exact size. */
static struct sample with_header(const struct peer *peer, uint8_t protocol, size_t bytes)
{
	bool is_ipv4 = peer->params.family == 4;
	size_t header = is_ipv4 ? GW_IPV4_BYTES : GW_IPV6_BYTES;
	struct sample sample = sample_of(NULL, header + bytes, 0, 4);
	uint8_t *ip = sample.packet.data;

	ip_packet(ip, &peer->params, 0);
	ip[is_ipv4 ? 9 : 6] = protocol;
	gw_store16(ip + (is_ipv4 ? 2 : 4), (uint16_t)(is_ipv4 ? header + bytes : bytes));
	return sample;
}

/* Seal ESP around any payload and trailer. */
static struct sample seal_esp(const struct peer *peer, struct gw_hot *hot, const uint8_t *data,
			      size_t text, bool in_udp)
{
	const struct gw_sa *sa = hot->sa;
	size_t bytes = GW_ESP_BYTES + sa->suite.iv_bytes + text + sa->suite.icv_bytes;
	struct sample sample = in_udp ? with_header(peer, GW_PROTOCOL_UDP, GW_UDP_BYTES + bytes)
				      : with_header(peer, GW_PROTOCOL_ESP, bytes);
	uint8_t *esp = sample.packet.data + sample.packet.length - sa->suite.icv_bytes - text -
		       sa->suite.iv_bytes - GW_ESP_BYTES;
	struct gw_op op = {
		.sa = hot->sa,
		.auth = esp,
		.text = esp + GW_ESP_BYTES + sa->suite.iv_bytes,
		.iv = esp + GW_ESP_BYTES,
		.icv = esp + GW_ESP_BYTES + sa->suite.iv_bytes + text,
		.sequence = ++hot->sequence,
		.text_bytes = (uint32_t)text,
		.auth_bytes = (uint32_t)(GW_ESP_BYTES + sa->suite.iv_bytes + text),
	};

	gw_store32(esp, peer->params.spi);
	gw_store32(esp + 4, (uint32_t)op.sequence);
	memset(esp + 8, 0, sa->suite.iv_bytes);
	memcpy(op.text, data, text);
	if (in_udp) {
		/* A NAT may have any port. */
		memcpy(esp - GW_UDP_BYTES, data, 2);
		gw_store16(esp - 4, (uint16_t)(GW_UDP_BYTES + bytes));
	}
	sa->run(worker, &op, 1);
	if (op.failed)
		abort();
	return sample;
}

/* Sign AH before any payload, whose first byte is the next header. */
static struct sample seal_ah(const struct peer *peer, struct gw_hot *hot, const uint8_t *data,
			     size_t bytes)
{
	const struct gw_sa *sa = hot->sa;
	struct sample sample = with_header(peer, GW_PROTOCOL_AH, sa->ah_bytes + bytes - 1);
	uint8_t *ip = sample.packet.data;
	uint8_t *ah = ip + sample.packet.length - (bytes - 1) - sa->ah_bytes;
	uint8_t header[GW_IPV6_BYTES], iv[8] = {0};
	struct gw_op op = {
		.sa = hot->sa,
		.auth = ip,
		.text = ip,
		.iv = iv,
		.icv = ah + GW_AH_FIXED_BYTES + sa->suite.iv_bytes,
		.sequence = ++hot->sequence,
		.auth_bytes = sample.packet.length,
	};

	memset(ah, 0, sa->ah_bytes);
	ah[0] = data[0];
	ah[1] = (uint8_t)(sa->ah_bytes / 4 - 2);
	gw_store32(ah + 4, peer->params.spi);
	gw_store32(ah + 8, (uint32_t)op.sequence);
	memcpy(ah + sa->ah_bytes, data + 1, bytes - 1);
	memcpy(header, ip, (size_t)(ah - ip));
	gw_ah_cover(ip, (uint32_t)(ah - ip), true);
	sa->run(worker, &op, 1);
	memcpy(ip, header, (size_t)(ah - ip));
	if (op.failed)
		abort();
	return sample;
}

/* False where the input is too short to be sealed. */
static bool seal_anything(const struct peer *peer, const uint8_t *data, size_t size, bool in_udp,
			  struct sample *sample)
{
	struct gw_hot *hot = gw_find_hot(worker, peer->outbound);
	size_t text = gw_align_down(hot->sa, (uint32_t)size);

	if (size < 1 || (!hot->sa->ah_bytes && text < GW_TRAILER_BYTES))
		return false;
	*sample = hot->sa->ah_bytes ? seal_ah(peer, hot, data, size)
				    : seal_esp(peer, hot, data, text, in_udp);
	return true;
}

/* Give a packet the length, destination and SPI with which it finds the peer's SA, if it is one at all. */
static void find_sa(const struct peer *peer, struct gw_packet *packet)
{
	bool is_ipv4 = peer->params.family == 4, is_ah = peer->params.protocol == GW_PROTOCOL_AH;
	uint8_t *ip = packet->data;
	struct gw_flow flow;
	uint32_t spi;

	if (packet->length < GW_IPV6_BYTES)
		return;
	ip[0] = (uint8_t)((is_ipv4 ? 0x40 : 0x60) | (ip[0] & 0x0f));
	gw_store16(ip + (is_ipv4 ? 2 : 4),
		   (uint16_t)(packet->length - (is_ipv4 ? 0 : GW_IPV6_BYTES)));
	memcpy(ip + (is_ipv4 ? 16 : 24), peer->params.destination, is_ipv4 ? 4 : 16);
	if (is_ipv4) {
		gw_store16(ip + 6, 0);
		ip[9] = peer->params.protocol;
	}
	if (gw_parse_flow(ip, packet->length, &flow) != GW_DROP_NONE ||
	    packet->length < flow.transport + GW_AH_FIXED_BYTES)
		return;
	spi = flow.transport + (is_ah ? 4 : 0);
	gw_store32(ip + spi, peer->params.spi);
	/* A number that no window has. */
	gw_store32(ip + spi + 4, UINT32_MAX);
	if (is_ah)
		ip[flow.transport + 1] =
			(uint8_t)(gw_find_hot(worker, peer->outbound)->sa->ah_bytes / 4 - 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gw_event events[4];
	const struct peer *peer;
	struct sample sample;
	const uint8_t *limit;
	size_t carried;

	if (size < 1 || size > 4096)
		return 0;
	peer = &peers[data[0] % PEERS];
	if (!(data[0] & SEAL) ||
	    !seal_anything(peer, data + 1, size - 1, data[0] & IN_UDP, &sample)) {
		sample = sample_of(data + 1, size - 1, 0, 4);
		if (data[0] & FIND_SA)
			find_sa(peer, &sample.packet);
	}
	limit = sample.packet.data + sample.packet.length;
	carried = gw_open_burst(worker, &sample.packet, 1, 1);
	if ((carried == 1) != (sample.packet.verdict == GW_DROP_NONE))
		abort();
	if (carried && (sample.packet.data < sample.memory || sample.packet.data > limit ||
			sample.packet.length > (size_t)(limit - sample.packet.data)))
		abort();
	/* Read all of it: what is handed out must be ours. */
	if (carried && gw_sum(sample.packet.data, sample.packet.length) == UINT64_MAX)
		puts("impossible");
	gw_worker_drain_events(worker, events, 4);
	free(sample.memory);
	return 0;
}
