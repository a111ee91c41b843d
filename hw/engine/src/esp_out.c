/* SPDX-License-Identifier: Apache-2.0 */
/* Packets out through their SAs: the steps of RFC 4303 §3.3, in its order. */
#include "esp_out.h"

#include "ah.h"
#include "transport.h"
#include "tunnel.h"
#include "usage.h"

/* The default padding 1, 2, 3, ... (RFC 4303 §2.4), and room to copy 16 bytes of it always. */
static const uint8_t padding[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

/*
 * Write padding and trailer behind a payload and the headers of the operation before it; give the
 * packet its sequence number. `payload` is in place already; TFC padding included, it has `bytes`.
 */
static inline enum gw_drop_reason enclose(struct gw_worker *worker, struct gw_hot *hot,
					  uint8_t *payload, uint32_t bytes, uint8_t next_header,
					  struct gw_packet *packet, struct gw_op *op)
{
	struct gw_sa *sa = hot->sa;
	uint32_t text_bytes = gw_align_up(sa, bytes + GW_TRAILER_BYTES);
	uint32_t pad = text_bytes - GW_TRAILER_BYTES - bytes;
	uint8_t *iv = payload - sa->suite.iv_bytes;
	uint64_t sequence = hot->sequence;

	memcpy(payload + bytes, padding, sizeof(padding));
	payload[text_bytes - 2] = (uint8_t)pad;
	payload[text_bytes - 1] = next_header;
	if (GW_LIKELY(hot->flags & GW_SA_COUNTER_IV))
		gw_store64(iv, sequence);
	else if (hot->flags & GW_SA_RANDOM_IV &&
		 !gw_entropy_take(worker->entropy, iv, sa->suite.iv_bytes))
		return GW_DROP_SEND_FAILED;
	packet->sequence = sequence;
	op->sa = sa;
	op->auth = iv - GW_ESP_BYTES;
	op->text = payload;
	op->iv = iv;
	op->icv = payload + text_bytes;
	op->sequence = sequence;
	op->text_bytes = text_bytes;
	op->auth_bytes = GW_ESP_BYTES + sa->suite.iv_bytes + text_bytes;
	op->udp = 0;
	return GW_DROP_NONE;
}

/* Move the packet's edges out to the new headers and behind the ICV. */
static inline void set_edges(struct gw_packet *packet, uint8_t *start, const uint8_t *end)
{
	uint8_t *limit = packet->data + packet->length + packet->tailroom;

	packet->headroom = (uint16_t)(packet->headroom - (packet->data - start));
	packet->tailroom = (uint16_t)(limit - end);
	packet->data = start;
	packet->length = (uint32_t)(end - start);
}

/* --- tunnel mode */

/* Return how many bytes are to be protected, TFC padding included (RFC 4303 §2.7), made zero. */
static inline uint32_t pad_traffic_flow(const struct gw_sa *sa, struct gw_packet *packet)
{
	if (GW_LIKELY(packet->length >= sa->out.tfc_bytes))
		return packet->length;
	memset(packet->data + packet->length, 0, sa->out.tfc_bytes - packet->length);
	return sa->out.tfc_bytes;
}

static inline bool fits(const struct gw_sa *sa, const struct gw_packet *packet)
{
	uint32_t tail = packet->length < sa->out.tfc_bytes ? sa->out.tfc_bytes - packet->length : 0;

	return packet->length <= sa->out.max_payload && packet->headroom >= GW_HEADROOM &&
	       packet->tailroom >= tail + GW_TAILROOM;
}

static inline void put_outer(const struct gw_hot *hot, const struct gw_inner *inner,
			     struct gw_packet *packet, struct gw_op *op)
{
	const struct gw_sa *sa = hot->sa;
	uint8_t *ip = op->auth - sa->outer_bytes;
	uint32_t length = sa->outer_bytes + op->auth_bytes + sa->suite.icv_bytes;
	uint8_t tos = inner->tos & sa->out.tos_mask;

	/*
	 * One copy, that ends where the IV begins; then what differs from packet to
	 * packet.
	 */
	memcpy(op->auth + GW_ESP_BYTES - GW_TEMPLATE_BYTES, sa->out.template, GW_TEMPLATE_BYTES);
	gw_store32(op->auth + 4, (uint32_t)op->sequence);
	if (hot->flags & GW_SA_UDP)
		gw_store16(op->auth - 4,
			   (uint16_t)(GW_UDP_BYTES + op->auth_bytes + sa->suite.icv_bytes));
	if (hot->flags & GW_SA_IPV6) {
		gw_fill_ipv6(ip, length, tos);
		op->udp = (hot->flags & GW_SA_UDP) != 0;
		op->head = GW_IPV6_BYTES;
	} else {
		gw_fill_ipv4(sa, ip, length, tos, gw_outer_df(sa, inner->is_df),
			     (uint16_t)(hot->spi + op->sequence));
	}
	set_edges(packet, ip, op->icv + sa->suite.icv_bytes);
}

static enum gw_drop_reason prepare_tunnel(struct gw_worker *worker, struct gw_hot *hot,
					  struct gw_packet *packet, struct gw_op *op)
{
	struct gw_inner inner = {.next_header = GW_PROTOCOL_NONE};
	enum gw_drop_reason reason;

	if (GW_LIKELY(!(packet->flags & GW_PACKET_DUMMY))) {
		reason = gw_inspect_inner(packet->data, packet->length, &inner);
		if (GW_UNLIKELY(reason != GW_DROP_NONE))
			return reason;
	}
	if (GW_UNLIKELY(!fits(hot->sa, packet)))
		return GW_DROP_TOO_BIG;
	reason = gw_account(worker, hot, packet->length, hot->sequence + 1);
	if (GW_UNLIKELY(reason != GW_DROP_NONE))
		return reason;
	hot->sequence++;
	reason = enclose(worker, hot, packet->data, pad_traffic_flow(hot->sa, packet),
			 inner.next_header, packet, op);
	if (GW_UNLIKELY(reason != GW_DROP_NONE))
		return reason;
	put_outer(hot, &inner, packet, op);
	return GW_DROP_NONE;
}

/* --- transport mode */

/* The largest packet that may go out: an IP length field's, or the path's. */
static uint32_t max_length(const struct gw_sa *sa)
{
	return sa->rest->path_mtu ? sa->rest->path_mtu : GW_MAX_IP_BYTES;
}

static enum gw_drop_reason prepare_transport(struct gw_worker *worker, struct gw_hot *hot,
					     struct gw_packet *packet, struct gw_op *op)
{
	struct gw_sa *sa = hot->sa;
	struct gw_split split;
	enum gw_drop_reason reason = gw_split_packet(packet->data, packet->length, &split);
	uint32_t udp_bytes = hot->flags & GW_SA_UDP ? GW_UDP_BYTES : 0;
	uint32_t front = udp_bytes + GW_ESP_BYTES + sa->suite.iv_bytes;
	uint32_t payload_bytes, length;
	uint8_t *ip;

	if (reason != GW_DROP_NONE)
		return reason;
	if (packet->data[0] >> 4 != sa->rest->family)
		return GW_DROP_MODE_MISMATCH;
	if (packet->flags & GW_PACKET_DUMMY)
		return GW_DROP_UNSUPPORTED;
	payload_bytes = packet->length - split.header;
	length = split.header + front + sa->suite.icv_bytes +
		 gw_align_up(sa, payload_bytes + GW_TRAILER_BYTES);
	if (length > max_length(sa) || packet->headroom < GW_HEADROOM ||
	    packet->tailroom < GW_TAILROOM)
		return GW_DROP_TOO_BIG;
	reason = gw_account(worker, hot, payload_bytes, hot->sequence + 1);
	if (reason != GW_DROP_NONE)
		return reason;
	hot->sequence++;
	ip = packet->data - front;
	memmove(ip, packet->data, split.header);
	reason = enclose(worker, hot, packet->data + split.header, payload_bytes, split.next_header,
			 packet, op);
	if (reason != GW_DROP_NONE)
		return reason;
	if (udp_bytes) {
		memcpy(op->auth - GW_UDP_BYTES,
		       sa->out.template + GW_TEMPLATE_BYTES - GW_ESP_BYTES - GW_UDP_BYTES,
		       GW_UDP_BYTES);
		gw_store16(op->auth - 4, (uint16_t)(length - split.header));
	}
	gw_store32(op->auth, hot->spi);
	gw_store32(op->auth + 4, (uint32_t)op->sequence);
	gw_set_payload(ip, split.header, split.next_field,
		       udp_bytes ? GW_PROTOCOL_UDP : GW_PROTOCOL_ESP, length);
	op->udp = udp_bytes && sa->rest->family == 6;
	op->head = (uint16_t)split.header;
	set_edges(packet, ip, op->icv + sa->suite.icv_bytes);
	return GW_DROP_NONE;
}

gw_prepare gw_choose_prepare(bool ah, enum gw_mode mode)
{
	if (ah)
		return mode == GW_TUNNEL ? gw_ah_prepare_tunnel : gw_ah_prepare_transport;
	return mode == GW_TUNNEL ? prepare_tunnel : prepare_transport;
}

/* --- bursts */

/* Bring in what packets will touch: their hot lines first, and what these refer to a chunk later. */
static void fetch_hot(const struct gw_worker *worker, const struct gw_packet *packets, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (packets[i].ref < worker->outbound_sas)
			__builtin_prefetch(&worker->outbound[packets[i].ref], 1);
}

static void fetch_sas(const struct gw_worker *worker, const struct gw_packet *packets, size_t count)
{
	uint32_t last = GW_NO_REF;

	for (size_t i = 0; i < count; i++) {
		uint32_t ref = packets[i].ref;

		if (ref != last && ref < worker->outbound_sas)
			gw_fetch_sa(worker->outbound[ref].sa);
		last = ref;
	}
}

void gw_run_ops(struct gw_worker *worker, size_t count)
{
	size_t start = 0;

	while (start < count) {
		gw_crypto_run run = worker->ops[start].sa->run;
		size_t end = start + 1;

		while (end < count && worker->ops[end].sa->run == run)
			end++;
		run(worker, worker->ops + start, end - start);
		start = end;
	}
}

static bool finish(struct gw_worker *worker, struct gw_packet *packet, const struct gw_op *op)
{
	if (op->sa->ah_bytes)
		gw_ah_finish(worker, packet, op);
	if (GW_UNLIKELY(op->failed)) {
		gw_drop(worker, op->sa, packet, GW_DROP_SEND_FAILED);
		return false;
	}
	if (op->udp)
		gw_udp6_checksum(packet->data, packet->data + op->head);
	return true;
}

static size_t seal_chunk(struct gw_worker *worker, struct gw_packet *packets, size_t count)
{
	size_t prepared = 0, carried = 0;

	for (size_t i = 0; i < count; i++) {
		struct gw_packet *packet = &packets[i];
		struct gw_hot *hot = gw_find_outbound(worker, packet->ref);
		struct gw_op *op = &worker->ops[prepared];
		enum gw_drop_reason reason;

		packet->sequence = 0;
		if (GW_UNLIKELY(!hot)) {
			gw_drop(worker, NULL, packet, GW_DROP_NO_SA);
			continue;
		}
		reason = hot->sa->prepare(worker, hot, packet, op);
		if (GW_UNLIKELY(reason != GW_DROP_NONE)) {
			gw_drop(worker, hot->sa, packet, reason);
			continue;
		}
		packet->verdict = GW_DROP_NONE;
		op->packet = (uint32_t)i;
		prepared++;
	}
	gw_run_ops(worker, prepared);
	for (size_t i = 0; i < prepared; i++)
		carried += finish(worker, &packets[worker->ops[i].packet], &worker->ops[i]);
	return carried;
}

size_t gw_seal_burst(struct gw_worker *worker, struct gw_packet *packets, size_t count,
		     uint64_t now_ns)
{
	struct gw_hot *hot = count ? gw_find_outbound(worker, packets[0].ref) : NULL;
	size_t chunk = gw_choose_chunk(hot ? hot->sa : NULL);
	size_t carried = 0;

	worker->now_ns = now_ns;
	fetch_hot(worker, packets, gw_in_chunk(count, 0, 2 * chunk));
	fetch_sas(worker, packets, gw_in_chunk(count, 0, chunk));
	for (size_t start = 0; start < count; start += chunk) {
		size_t next = start + chunk, after = next + chunk;

		fetch_sas(worker, packets + next, gw_in_chunk(count, next, chunk));
		fetch_hot(worker, packets + after, gw_in_chunk(count, after, chunk));
		carried += seal_chunk(worker, packets + start, gw_in_chunk(count, start, chunk));
	}
	return carried;
}
