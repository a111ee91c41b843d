/* SPDX-License-Identifier: Apache-2.0 */
/* Packets in through their SAs: the steps of RFC 4303 §3.4 and RFC 4301 §5.2, in their order. */
#include "ah.h"
#include "esp_out.h"
#include "transport.h"
#include "tunnel.h"
#include "usage.h"

/* --- what can be told without a key */

static enum gw_drop_reason parse_headers(const uint8_t *ip, uint32_t length, struct gw_outer *outer)
{
	struct gw_flow flow;
	enum gw_drop_reason reason = gw_parse_flow(ip, length, &flow);

	if (reason != GW_DROP_NONE)
		return reason;
	if (flow.is_fragment)
		return GW_DROP_FRAGMENT;
	outer->header = flow.transport;
	outer->protocol = (uint8_t)flow.protocol;
	if (flow.family == 4) {
		outer->tos = ip[1];
		outer->end = gw_load16(ip + 2);
	} else {
		outer->tos = gw_ipv6_tos(ip);
		outer->end = GW_IPV6_BYTES + gw_load16(ip + 4);
	}
	return GW_DROP_NONE;
}

/* Find ESP or AH behind the outer headers (RFC 3948 §2.1 for UDP). */
static inline enum gw_drop_reason parse_outer(const struct gw_packet *packet,
					      struct gw_outer *outer)
{
	const uint8_t *ip = packet->data;
	enum gw_drop_reason reason;

	if (GW_LIKELY(packet->length >= GW_IPV4_BYTES && ip[0] == 0x45 &&
		      !(gw_load16(ip + 6) & GW_IPV4_MF_OR_OFFSET))) {
		outer->header = GW_IPV4_BYTES;
		outer->protocol = ip[9];
		outer->tos = ip[1];
		outer->end = gw_load16(ip + 2);
	} else {
		reason = parse_headers(ip, packet->length, outer);
		if (reason != GW_DROP_NONE)
			return reason;
	}
	if (outer->end < outer->header || outer->end > packet->length)
		return GW_DROP_MALFORMED;
	outer->udp = outer->protocol == GW_PROTOCOL_UDP;
	outer->head = outer->header;
	if (outer->udp) {
		outer->head += GW_UDP_BYTES;
		outer->protocol = GW_PROTOCOL_ESP;
	}
	if (outer->protocol != GW_PROTOCOL_ESP && outer->protocol != GW_PROTOCOL_AH)
		return GW_DROP_UNSUPPORTED;
	/* Both begin with what is looked at before the SA is known. */
	return outer->end < outer->head + (outer->protocol == GW_PROTOCOL_AH ? GW_AH_FIXED_BYTES
									     : GW_ESP_BYTES)
		       ? GW_DROP_MALFORMED
		       : GW_DROP_NONE;
}

/*
 * Find the SA by SPI, destination and protocol (RFC 4301 §4.1); the low bits of the SPI are its
 * index.
 */
static inline struct gw_hot *look_up(const struct gw_worker *worker, const uint8_t *ip,
				     uint32_t spi, uint8_t protocol)
{
	struct gw_hot *hot = &worker->inbound[spi & worker->inbound_mask];
	bool is_ah = protocol == GW_PROTOCOL_AH;
	bool is_ipv6 = ip[0] >> 4 == 6;

	if (!hot->sa || hot->spi != spi || !(hot->flags & GW_SA_AH) != !is_ah ||
	    !(hot->flags & GW_SA_IPV6) != !is_ipv6)
		return NULL;
	if (is_ipv6)
		return memcmp(ip + 24, hot->sa->in.destination, 16) == 0 ? hot : NULL;
	return memcmp(ip + 16, hot->sa->in.destination, 4) == 0 ? hot : NULL;
}

static inline enum gw_drop_reason prepare_esp(struct gw_hot *hot, struct gw_packet *packet,
					      const struct gw_outer *outer, struct gw_op *op)
{
	struct gw_sa *sa = hot->sa;
	uint32_t bytes = outer->end - outer->head;
	uint32_t fixed = GW_ESP_BYTES + sa->suite.iv_bytes + sa->suite.icv_bytes;
	enum gw_drop_reason reason;

	if (bytes < fixed + GW_TRAILER_BYTES)
		return GW_DROP_MALFORMED;
	if ((bytes - fixed) & (sa->suite.alignment - 1u))
		return GW_DROP_PADDING;
	if (hot->flags & GW_SA_EXPIRED)
		return GW_DROP_SA_EXPIRED;
	op->sa = sa;
	op->auth = packet->data + outer->head;
	reason = gw_replay_check(&sa->in.replay, hot->sequence, sa->esn, gw_load32(op->auth + 4),
				 &op->sequence);
	if (reason != GW_DROP_NONE)
		return reason;
	__builtin_prefetch(&sa->in.replay.blocks[op->sequence / 64 & sa->in.replay.mask], 1);
	op->iv = op->auth + GW_ESP_BYTES;
	op->text = op->auth + GW_ESP_BYTES + sa->suite.iv_bytes;
	op->text_bytes = bytes - fixed;
	op->auth_bytes = bytes - sa->suite.icv_bytes;
	op->icv = op->text + op->text_bytes;
	op->head = (uint16_t)outer->head;
	op->udp = outer->udp;
	return GW_DROP_NONE;
}

static enum gw_drop_reason prepare_ah(struct gw_worker *worker, struct gw_hot *hot,
				      struct gw_packet *packet, const struct gw_outer *outer,
				      struct gw_op *op)
{
	struct gw_sa *sa = hot->sa;
	const uint8_t *ah = packet->data + outer->head;
	uint32_t bytes;
	enum gw_drop_reason reason =
		gw_ah_check_size(&sa->suite, ah, outer->end - outer->head, &bytes);

	if (reason != GW_DROP_NONE)
		return reason;
	if (hot->flags & GW_SA_EXPIRED)
		return GW_DROP_SA_EXPIRED;
	reason = gw_replay_check(&sa->in.replay, hot->sequence, sa->esn, gw_load32(ah + 8),
				 &op->sequence);
	if (reason != GW_DROP_NONE)
		return reason;
	return gw_ah_prepare_open(worker, sa, packet, outer, op);
}

/* --- what is believed behind the ICV */

/* A payload that is authentic, and what it was wrapped in. */
struct payload {
	uint8_t *data;
	uint32_t length;
	uint32_t header; /* of the outer IP header; what follows it is gone */
	uint8_t next_header;
};

/* Say whether so many bytes before `end` are 1, 2, 3, ...; ESP's header is before them, if nothing else. */
static inline bool has_pad(const uint8_t *end, uint32_t pad)
{
	uint32_t at = 0;

	if (GW_LIKELY(pad <= 4)) {
		uint32_t wanted = (uint32_t)(0x01020304ull >> 8 * (4 - pad));

		return ((gw_load32(end - 4) ^ wanted) & ((1ull << 8 * pad) - 1)) == 0;
	}
	while (at < pad && *(end - pad + at) == at + 1)
		at++;
	return at == pad;
}

/* Take the trailer off; pad bytes must be 1, 2, 3, ... (RFC 4303 §2.4). */
static inline enum gw_drop_reason strip_trailer(const struct gw_op *op, struct payload *payload)
{
	uint32_t end = op->text_bytes - GW_TRAILER_BYTES;
	uint32_t pad = op->text[end];

	if (GW_UNLIKELY(pad > end || !has_pad(op->text + end, pad)))
		return GW_DROP_PADDING;
	payload->data = op->text;
	payload->length = end - pad;
	payload->next_header = op->text[end + 1];
	payload->header = op->udp ? op->head - GW_UDP_BYTES : op->head;
	return GW_DROP_NONE;
}

static void strip_ah(const struct gw_packet *packet, const struct gw_op *op,
		     struct payload *payload)
{
	uint8_t *ah = packet->data + op->head;
	uint32_t bytes = ((uint32_t)ah[1] + 2) * 4;

	payload->data = ah + bytes;
	payload->length = (uint32_t)(op->auth + op->auth_bytes - payload->data);
	payload->next_header = ah[0];
	payload->header = op->head;
}

/*
 * Put the outer header before the payload: transport mode (RFC 4303 §3.4.4.1 step 5, RFC 4302
 * §3.1.1).
 */
static enum gw_drop_reason rebuild(const struct gw_hot *hot, const struct gw_packet *packet,
				   const struct gw_op *op, struct payload *payload)
{
	uint8_t next = payload->next_header;
	uint32_t header = payload->header, length = header + payload->length;
	uint32_t field = 0;
	uint8_t *ip = payload->data - header;

	if ((next == GW_PROTOCOL_IPV4 || next == GW_PROTOCOL_IPV6) &&
	    !gw_selectors_name(&hot->sa->rest->selectors, next))
		return GW_DROP_MODE_MISMATCH;
	if (hot->flags & GW_SA_IPV6) {
		field = gw_last_next_field(packet->data, header);
		if (field == 0)
			return GW_DROP_MALFORMED;
	}
	memmove(ip, packet->data, header);
	gw_set_payload(ip, header, field, next, length);
	if (op->udp)
		gw_fix_transport_checksum(ip, length, next, header);
	payload->data = ip;
	payload->length = length;
	return GW_DROP_NONE;
}

/* Whole IPv4 packets without options that show their ports, if they have any: nothing to object to. */
static inline bool is_plain(const struct payload *packet)
{
	return packet->length >= GW_IPV4_BYTES + 4 && packet->data[0] == 0x45 &&
	       !(gw_load16(packet->data + 6) & GW_IPV4_MF_OR_OFFSET);
}

static inline enum gw_drop_reason check_selectors(const struct gw_sa *sa,
						  const struct payload *packet)
{
	struct gw_flow flow;
	enum gw_drop_reason reason;

	if (GW_LIKELY(sa->in.plain.is_plain && is_plain(packet)))
		return gw_plain_permits(&sa->in.plain, packet->data) ? GW_DROP_NONE
								     : GW_DROP_SELECTOR_MISMATCH;
	reason = gw_parse_flow(packet->data, packet->length, &flow);
	if (reason != GW_DROP_NONE)
		return reason;
	return gw_selectors_permit_inbound(&sa->rest->selectors, &flow) ? GW_DROP_NONE
									: GW_DROP_SELECTOR_MISMATCH;
}

/* Read source and port of the outer headers, before another header moves over them. */
static uint16_t read_source(const struct gw_sa *sa, const struct gw_packet *packet,
			    const struct gw_op *op, uint8_t source[16])
{
	bool is_ipv4 = sa->rest->family == 4;

	memcpy(source, packet->data + (is_ipv4 ? 12 : 8), is_ipv4 ? 4 : 16);
	return gw_load16(packet->data + op->head - GW_UDP_BYTES);
}

/* Note where the peer is now (RFC 7296 §2.23). */
static void follow_nat(struct gw_worker *worker, struct gw_sa *sa, const uint8_t source[16],
		       uint16_t port)
{
	size_t bytes = sa->rest->family == 4 ? 4 : 16;

	if (port == sa->rest->source_port && memcmp(source, sa->rest->source, bytes) == 0)
		return;
	memcpy(sa->rest->source, source, bytes);
	sa->rest->source_port = port;
	gw_usage_tell(worker, sa, GW_EVENT_NAT_MOVED);
}

static void hand_over(struct gw_packet *packet, const struct payload *inner)
{
	uint8_t *limit = packet->data + packet->length + packet->tailroom;

	packet->headroom = (uint16_t)(packet->headroom + (inner->data - packet->data));
	packet->tailroom = (uint16_t)(limit - (inner->data + inner->length));
	packet->data = inner->data;
	packet->length = inner->length;
}

static inline enum gw_drop_reason finish(struct gw_worker *worker, struct gw_hot *hot,
					 struct gw_packet *packet, const struct gw_op *op)
{
	struct gw_sa *sa = hot->sa;
	uint64_t highest = hot->sequence;
	uint8_t *ip = packet->data;
	struct payload payload;
	uint8_t source[16];
	uint16_t port = 0;
	uint32_t carried;
	enum gw_drop_reason reason;

	if (sa->ah_bytes)
		gw_ah_finish(worker, packet, op);
	if (GW_UNLIKELY(op->failed))
		return GW_DROP_INTEGRITY;
	reason = gw_replay_commit(&sa->in.replay, &hot->sequence, op->sequence);
	if (GW_UNLIKELY(reason != GW_DROP_NONE))
		return reason;
	packet->sequence = op->sequence;
	if (sa->ah_bytes)
		strip_ah(packet, op, &payload);
	else
		reason = strip_trailer(op, &payload);
	if (GW_UNLIKELY(reason != GW_DROP_NONE))
		return reason;
	if (GW_UNLIKELY(payload.next_header == GW_PROTOCOL_NONE && !sa->ah_bytes))
		return GW_DROP_DUMMY;
	/*
	 * Only the newest authentic packet is believed, so that an old one, held back and sent again
	 * from elsewhere, moves nothing.
	 */
	if (GW_UNLIKELY(op->udp && hot->flags & GW_SA_UDP && op->sequence > highest))
		port = read_source(sa, packet, op, source);
	carried = payload.length;
	if (hot->flags & GW_SA_TUNNEL) {
		uint8_t tos = ip[0] >> 4 == 4 ? ip[1] : gw_ipv6_tos(ip);

		reason = gw_decapsulate(payload.data, &payload.length, payload.next_header, tos);
		carried = payload.length;
	} else {
		reason = rebuild(hot, packet, op, &payload);
	}
	if (reason == GW_DROP_NONE)
		reason = check_selectors(sa, &payload);
	if (reason == GW_DROP_NONE)
		reason = gw_account(worker, hot, carried, op->sequence);
	if (GW_UNLIKELY(reason != GW_DROP_NONE))
		return reason;
	if (GW_UNLIKELY(port))
		follow_nat(worker, sa, source, port);
	hand_over(packet, &payload);
	return GW_DROP_NONE;
}

/* --- bursts */

/* Find the place of the SA that a packet is most likely for; NULL: not worth looking ahead. */
static inline struct gw_hot *find_hot(const struct gw_worker *worker,
				      const struct gw_packet *packet)
{
	const uint8_t *ip = packet->data;
	uint32_t at = GW_IPV4_BYTES;

	if (packet->length < GW_IPV6_BYTES + GW_UDP_BYTES + 4)
		return NULL;
	if (ip[0] >> 4 == 6)
		at = ip[6] == GW_PROTOCOL_UDP ? GW_IPV6_BYTES + GW_UDP_BYTES : GW_IPV6_BYTES;
	else if (ip[9] == GW_PROTOCOL_UDP)
		at += GW_UDP_BYTES;
	return &worker->inbound[gw_load32(ip + at) & worker->inbound_mask];
}

/* Bring in what packets will touch: their hot lines first, and what these refer to a chunk later. */
static void fetch_hot(const struct gw_worker *worker, const struct gw_packet *packets, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct gw_hot *hot = find_hot(worker, &packets[i]);

		if (hot)
			__builtin_prefetch(hot, 1);
	}
}

static void fetch_sas(const struct gw_worker *worker, const struct gw_packet *packets, size_t count)
{
	const struct gw_hot *last = NULL;

	for (size_t i = 0; i < count; i++) {
		const struct gw_hot *hot = find_hot(worker, &packets[i]);

		if (hot && hot != last)
			gw_fetch_sa(hot->sa);
		last = hot;
	}
}

/* Say no without a key; else describe the operation. */
static inline enum gw_drop_reason prepare(struct gw_worker *worker, struct gw_packet *packet,
					  struct gw_hot **found, struct gw_op *op)
{
	struct gw_outer outer;
	enum gw_drop_reason reason = parse_outer(packet, &outer);
	uint32_t spi;

	if (reason != GW_DROP_NONE)
		return reason;
	spi = gw_load32(packet->data + outer.head + (outer.protocol == GW_PROTOCOL_AH ? 4 : 0));
	*found = look_up(worker, packet->data, spi, outer.protocol);
	if (!*found)
		return GW_DROP_UNKNOWN_SPI;
	packet->ref = GW_REF_INBOUND | (spi & worker->inbound_mask);
	if (outer.protocol == GW_PROTOCOL_AH)
		return prepare_ah(worker, *found, packet, &outer, op);
	return prepare_esp(*found, packet, &outer, op);
}

static size_t open_chunk(struct gw_worker *worker, struct gw_packet *packets, size_t count)
{
	size_t prepared = 0, carried = 0;

	for (size_t i = 0; i < count; i++) {
		struct gw_packet *packet = &packets[i];
		struct gw_op *op = &worker->ops[prepared];
		struct gw_hot *hot = NULL;
		enum gw_drop_reason reason;

		packet->sequence = 0;
		packet->ref = GW_NO_REF;
		reason = prepare(worker, packet, &hot, op);
		if (GW_UNLIKELY(reason != GW_DROP_NONE)) {
			gw_drop(worker, hot ? hot->sa : NULL, packet, reason);
			continue;
		}
		op->packet = (uint32_t)i;
		prepared++;
	}
	gw_run_ops(worker, prepared);
	for (size_t i = 0; i < prepared; i++) {
		const struct gw_op *op = &worker->ops[i];
		struct gw_packet *packet = &packets[op->packet];
		struct gw_hot *hot = &worker->inbound[packet->ref & ~GW_REF_INBOUND];
		enum gw_drop_reason reason = finish(worker, hot, packet, op);

		if (GW_UNLIKELY(reason != GW_DROP_NONE)) {
			gw_drop(worker, op->sa, packet, reason);
			continue;
		}
		packet->verdict = GW_DROP_NONE;
		carried++;
	}
	return carried;
}

size_t gw_open_burst(struct gw_worker *worker, struct gw_packet *packets, size_t count,
		     uint64_t now_ns)
{
	const struct gw_hot *hot = count ? find_hot(worker, &packets[0]) : NULL;
	size_t chunk = gw_choose_chunk(hot ? hot->sa : NULL);
	size_t carried = 0;

	worker->now_ns = now_ns;
	fetch_hot(worker, packets, gw_in_chunk(count, 0, 2 * chunk));
	fetch_sas(worker, packets, gw_in_chunk(count, 0, chunk));
	for (size_t start = 0; start < count; start += chunk) {
		size_t next = start + chunk, after = next + chunk;

		fetch_sas(worker, packets + next, gw_in_chunk(count, next, chunk));
		fetch_hot(worker, packets + after, gw_in_chunk(count, after, chunk));
		carried += open_chunk(worker, packets + start, gw_in_chunk(count, start, chunk));
	}
	return carried;
}
