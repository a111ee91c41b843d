/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer target: whatever comes in, gw_open_burst drops it or hands out a packet that lies
 * within its buffer.
 *
 * The first byte chooses what the input becomes: a packet as it is; or an inner payload that is
 * sealed, as an authentic peer with a mind of its own would, so that what lies behind the ICV is
 * reached too.
 */
#include "../tests/samples.h"

#include <stdio.h>

#define PEERS 8

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

/* Seal ESP around any payload and next header; false where the input is too short. */
static bool seal_anything(const struct peer *peer, const uint8_t *data, size_t size,
			  struct sample *sample)
{
	struct gw_hot *hot = gw_find_hot(worker, peer->outbound);
	struct gw_sa *sa = hot->sa;
	size_t header = peer->params.family == 4 ? GW_IPV4_BYTES : GW_IPV6_BYTES;
	size_t head = header + GW_ESP_BYTES + sa->iv_bytes;
	size_t text = size / (sa->align_mask + 1u) * (sa->align_mask + 1u);
	uint8_t *ip;
	struct gw_op op;

	if (sa->ah_bytes || text < 2)
		return false;
	*sample = sample_of(NULL, head + text + sa->icv_bytes, 0, 4);
	ip = sample->packet.data;
	ip_packet(ip, &peer->params, 0);
	ip[peer->params.family == 4 ? 9 : 6] = GW_PROTOCOL_ESP;
	gw_store16(
		ip + (peer->params.family == 4 ? 2 : 4),
		(uint16_t)(sample->packet.length - (peer->params.family == 4 ? 0 : GW_IPV6_BYTES)));
	hot->sequence++;
	gw_store32(ip + header, peer->params.spi);
	gw_store32(ip + header + 4, (uint32_t)hot->sequence);
	memset(ip + header + 8, 0, sa->iv_bytes);
	memcpy(ip + head, data, text);
	op = (struct gw_op){
		.sa = sa,
		.auth = ip + header,
		.text = ip + head,
		.iv = ip + header + 8,
		.icv = ip + head + text,
		.sequence = hot->sequence,
		.text_bytes = (uint32_t)text,
		.auth_bytes = (uint32_t)(head - header + text),
	};
	sa->run(worker, &op, 1);
	if (op.failed)
		abort();
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gw_event events[4];
	struct sample sample;
	const uint8_t *limit;
	size_t carried;

	if (size < 1 || size > 4096)
		return 0;
	if (!(data[0] & 8) || !seal_anything(&peers[data[0] & 7], data + 1, size - 1, &sample))
		sample = sample_of(data + 1, size - 1, 0, 4);
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
