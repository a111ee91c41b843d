/* SPDX-License-Identifier: Apache-2.0 */
#include "ah.h"

#include "ah_cover.h"
#include "transport.h"
#include "tunnel.h"
#include "usage.h"

struct scratch {
	uint8_t header[GW_AH_MAX_HEADER];
	uint8_t field[GW_MAX_IV + GW_MAX_ICV];
	uint32_t header_bytes;
};

size_t gw_ah_scratch_bytes(void)
{
	return GW_CHUNK * sizeof(struct scratch);
}

static struct scratch *scratch_of(const struct gw_worker *worker, const struct gw_op *op)
{
	return (struct scratch *)(void *)worker->scratch + (op - worker->ops);
}

static uint32_t padded(uint32_t bytes, uint32_t alignment)
{
	return (bytes + alignment - 1) & ~(alignment - 1);
}

static uint32_t field_bytes(const struct gw_suite *suite)
{
	return (uint32_t)suite->iv_bytes + suite->icv_bytes;
}

uint8_t gw_ah_bytes(const struct gw_suite *suite, uint8_t family)
{
	return (uint8_t)padded(GW_AH_FIXED_BYTES + field_bytes(suite), family == 4 ? 4 : 8);
}

/* Keep the true headers and show the crypto what the ICV covers of them. */
static enum gw_drop_reason cover(struct scratch *scratch, uint8_t *ip, uint32_t bytes, bool sending)
{
	enum gw_drop_reason reason;

	memcpy(scratch->header, ip, bytes);
	scratch->header_bytes = bytes;
	reason = gw_ah_cover(ip, bytes, sending);
	if (reason != GW_DROP_NONE)
		memcpy(ip, scratch->header, bytes);
	return reason;
}

/* --- outbound (RFC 4302 §3.3) */

static uint16_t identification(const struct gw_hot *hot, uint64_t sequence)
{
	/* The ICV covers it: never 0, which Linux would replace. */
	return (uint16_t)((hot->spi + sequence) % 0xffff + 1);
}

static void write_ah(const struct gw_hot *hot, uint8_t *ah, uint8_t next_header, uint64_t sequence)
{
	memset(ah, 0, hot->sa->ah_bytes);
	ah[0] = next_header;
	ah[1] = (uint8_t)(hot->sa->ah_bytes / 4 - 2);
	gw_store32(ah + 4, hot->spi);
	gw_store32(ah + 8, (uint32_t)sequence);
}

/* The packet stands as it goes out, but for IV and ICV: describe what is to be signed. */
static enum gw_drop_reason sign(struct gw_worker *worker, struct gw_sa *sa,
				const struct gw_packet *packet, uint32_t header, struct gw_op *op)
{
	struct scratch *scratch = scratch_of(worker, op);
	uint8_t *ah = packet->data + header;

	gw_store64(scratch->field, packet->sequence);
	op->sa = sa;
	op->sequence = packet->sequence;
	op->auth = op->text = packet->data;
	op->auth_bytes = packet->length;
	op->text_bytes = 0;
	op->iv = scratch->field;
	op->icv = ah + GW_AH_FIXED_BYTES + sa->suite.iv_bytes;
	op->head = (uint16_t)header;
	op->udp = 0;
	return cover(scratch, packet->data, header, true);
}

static bool has_room(const struct gw_packet *packet)
{
	return packet->headroom >= GW_HEADROOM && packet->tailroom >= GW_TAILROOM;
}

static void grow(struct gw_packet *packet, uint32_t front)
{
	packet->data -= front;
	packet->length += front;
	packet->headroom = (uint16_t)(packet->headroom - front);
}

enum gw_drop_reason gw_ah_prepare_tunnel(struct gw_worker *worker, struct gw_hot *hot,
					 struct gw_packet *packet, struct gw_op *op)
{
	struct gw_sa *sa = hot->sa;
	uint64_t sequence = hot->sequence + 1;
	struct gw_inner inner;
	enum gw_drop_reason reason = gw_inspect_inner(packet->data, packet->length, &inner);

	if (packet->flags & GW_PACKET_DUMMY)
		return GW_DROP_UNSUPPORTED;
	if (reason != GW_DROP_NONE)
		return reason;
	if (packet->length > sa->out.max_payload || !has_room(packet))
		return GW_DROP_TOO_BIG;
	reason = gw_account(worker, hot, packet->length, sequence);
	if (reason != GW_DROP_NONE)
		return reason;
	packet->sequence = hot->sequence = sequence;
	grow(packet, (uint32_t)sa->ah_bytes + sa->outer_bytes);
	memcpy(packet->data, sa->out.template + GW_TEMPLATE_BYTES - GW_ESP_BYTES - sa->outer_bytes,
	       sa->outer_bytes);
	if (sa->rest->family == 4)
		gw_fill_ipv4(sa, packet->data, packet->length, inner.tos & sa->out.tos_mask,
			     gw_outer_df(sa, inner.is_df), identification(hot, sequence));
	else
		gw_fill_ipv6(packet->data, packet->length, inner.tos & sa->out.tos_mask);
	write_ah(hot, packet->data + sa->outer_bytes, inner.next_header, sequence);
	return sign(worker, sa, packet, sa->outer_bytes, op);
}

/* Nobody can tell what the way does to some options: find out before anything is changed. */
static enum gw_drop_reason try_cover(const uint8_t *ip, uint32_t bytes)
{
	uint8_t copy[GW_AH_MAX_HEADER];

	if (bytes > sizeof(copy))
		return GW_DROP_UNSUPPORTED;
	memcpy(copy, ip, bytes);
	return gw_ah_cover(copy, bytes, true);
}

enum gw_drop_reason gw_ah_prepare_transport(struct gw_worker *worker, struct gw_hot *hot,
					    struct gw_packet *packet, struct gw_op *op)
{
	struct gw_sa *sa = hot->sa;
	uint64_t sequence = hot->sequence + 1;
	struct gw_split split;
	enum gw_drop_reason reason = gw_split_packet(packet->data, packet->length, &split);
	uint32_t length = packet->length + sa->ah_bytes;
	uint8_t *ip;

	if (packet->flags & GW_PACKET_DUMMY)
		return GW_DROP_UNSUPPORTED;
	if (reason == GW_DROP_NONE && packet->data[0] >> 4 != sa->rest->family)
		reason = GW_DROP_MODE_MISMATCH;
	if (reason == GW_DROP_NONE)
		reason = try_cover(packet->data, split.header);
	if (reason != GW_DROP_NONE)
		return reason;
	if (length > GW_AH_MAX_BYTES || (sa->rest->path_mtu && length > sa->rest->path_mtu) ||
	    !has_room(packet))
		return GW_DROP_TOO_BIG;
	reason = gw_account(worker, hot, packet->length - split.header, sequence);
	if (reason != GW_DROP_NONE)
		return reason;
	packet->sequence = hot->sequence = sequence;
	grow(packet, sa->ah_bytes);
	ip = packet->data;
	memmove(ip, ip + sa->ah_bytes, split.header);
	/* Without DF and identification Linux would make one up, behind the ICV. */
	if (sa->rest->family == 4 && gw_load16(ip + 4) == 0 && !(gw_load16(ip + 6) & GW_IPV4_DF))
		gw_store16(ip + 4, identification(hot, sequence));
	gw_set_payload(ip, split.header, split.next_field, GW_PROTOCOL_AH, length);
	write_ah(hot, ip + split.header, split.next_header, sequence);
	return sign(worker, sa, packet, split.header, op);
}

void gw_ah_finish(struct gw_worker *worker, struct gw_packet *packet, const struct gw_op *op)
{
	const struct scratch *scratch = scratch_of(worker, op);

	memcpy(packet->data, scratch->header, scratch->header_bytes);
	if (!op->sa->inbound)
		memcpy(packet->data + op->head + GW_AH_FIXED_BYTES, scratch->field,
		       op->sa->suite.iv_bytes);
}

/* --- inbound (RFC 4302 §3.4) */

enum gw_drop_reason gw_ah_check_size(const struct gw_suite *suite, const uint8_t *ah, uint32_t room,
				     uint32_t *bytes)
{
	uint32_t least = GW_AH_FIXED_BYTES + field_bytes(suite);

	*bytes = ((uint32_t)ah[1] + 2) * 4;
	/*
	 * Linux aligns to 64 bits over IPv4 too, unless it is told `flag align4`, and RFC 4543 §4
	 * has GMAC without padding over IPv6. Padding is authenticated, whatever there is of it.
	 */
	if ((*bytes != padded(least, 4) && *bytes != padded(least, 8)) || *bytes > room)
		return GW_DROP_MALFORMED;
	return GW_DROP_NONE;
}

enum gw_drop_reason gw_ah_prepare_open(struct gw_worker *worker, struct gw_sa *sa,
				       struct gw_packet *packet, const struct gw_outer *outer,
				       struct gw_op *op)
{
	struct scratch *scratch = scratch_of(worker, op);
	uint8_t *field = packet->data + outer->head + GW_AH_FIXED_BYTES;
	uint32_t bytes = field_bytes(&sa->suite);
	enum gw_drop_reason reason;

	/* The high half of an ESN is put behind the packet for a while. */
	if (outer->header > GW_AH_MAX_HEADER || outer->end > GW_AH_MAX_BYTES ||
	    packet->length - outer->end + packet->tailroom < (sa->esn ? 4u : 0u))
		return GW_DROP_UNSUPPORTED;
	reason = cover(scratch, packet->data, outer->header, false);
	if (reason != GW_DROP_NONE)
		return reason;
	memcpy(scratch->field, field, bytes);
	memset(field, 0, bytes);
	op->sa = sa;
	op->auth = op->text = packet->data;
	op->auth_bytes = outer->end;
	op->text_bytes = 0;
	op->iv = scratch->field;
	op->icv = scratch->field + sa->suite.iv_bytes;
	op->head = (uint16_t)outer->head;
	op->udp = 0;
	return GW_DROP_NONE;
}
