/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SAD of one worker: install, hand over, remove; and the tunnels that name SAs (RFC 4301
 * §4.4.2).
 */
#include <stdlib.h>

#include "ah.h"
#include "crypto.h"
#include "esp_out.h"
#include "tunnel.h"
#include "usage.h"

#define MIN_SPI    256u
#define MAX_TABLE  (1u << 24)
#define MIN_WINDOW 64u

/* --- checking what is to be installed */

static bool is_selector(const struct gw_selector *selector)
{
	return selector->family == 4 || selector->family == 6;
}

static bool checks_out(const struct gw_sa_params *params)
{
	uint32_t selectors = (uint32_t)params->local_selectors + params->remote_selectors;
	bool has_udp = params->udp_source_port != 0;
	bool outbound = params->direction == GW_OUTBOUND;

	if (params->spi < MIN_SPI || params->direction > GW_OUTBOUND ||
	    params->mode > GW_TRANSPORT || params->df > GW_DF_CLEAR ||
	    params->crypto > GW_CRYPTO_OPENSSL || (params->family != 4 && params->family != 6))
		return false;
	if (has_udp != (params->udp_destination_port != 0) ||
	    (has_udp && params->protocol == GW_PROTOCOL_AH))
		return false;
	if (outbound &&
	    (params->next_sequence == 0 || params->sequence_limit < params->next_sequence))
		return false;
	if (!outbound && (params->replay_window > GW_MAX_REPLAY_WINDOW ||
			  (params->replay_window != 0 && params->replay_window < MIN_WINDOW) ||
			  (params->replay_window == 0 && params->esn)))
		return false;
	if (selectors > GW_MAX_SELECTORS)
		return false;
	for (uint32_t i = 0; i < selectors; i++)
		if (!is_selector(&params->selectors[i]))
			return false;
	return true;
}

static enum gw_error check_keys(const struct gw_suite *suite, const struct gw_sa_params *params)
{
	bool mac_has_salt = suite->mac == GW_MAC_GMAC;
	size_t cipher_bytes = suite->key_bytes + (mac_has_salt ? 0u : suite->salt_bytes);
	size_t mac_bytes = suite->mac_key_bytes + (mac_has_salt ? suite->salt_bytes : 0u);

	return params->encryption_key_bytes == cipher_bytes &&
			       params->integrity_key_bytes == mac_bytes
		       ? GW_OK
		       : GW_E_KEY;
}

/* --- building */

static uint32_t window_blocks(uint32_t window)
{
	uint32_t blocks = 1;

	while (blocks * 64 < window + 64)
		blocks *= 2;
	return blocks;
}

/* What fits behind the headers: into an IP length field, and into the path MTU (RFC 4301 §8). */
static uint16_t max_payload(const struct gw_sa *sa)
{
	uint32_t limit = sa->rest->path_mtu ? sa->rest->path_mtu : GW_MAX_IP_BYTES;
	uint32_t fixed = sa->outer_bytes;

	if (sa->ah_bytes && limit > GW_AH_MAX_BYTES)
		limit = GW_AH_MAX_BYTES;
	else if (!sa->rest->path_mtu && sa->rest->family == 6)
		fixed -= GW_IPV6_BYTES; /* its length field does not count it */
	if (sa->ah_bytes)
		return (uint16_t)(limit > fixed + sa->ah_bytes ? limit - fixed - sa->ah_bytes : 0);
	fixed += GW_ESP_BYTES + sa->suite.iv_bytes + sa->suite.icv_bytes;
	if (limit < fixed + GW_TRAILER_BYTES)
		return 0;
	limit -= fixed;
	limit = gw_align_down(sa, limit);
	return (uint16_t)(limit < GW_TRAILER_BYTES ? 0 : limit - GW_TRAILER_BYTES);
}

static void set_sizes(struct gw_sa *sa)
{
	sa->out.max_payload = max_payload(sa);
	sa->out.tfc_bytes = sa->rest->wanted_tfc_bytes < sa->out.max_payload
				    ? sa->rest->wanted_tfc_bytes
				    : sa->out.max_payload;
}

static uint32_t flags_of(const struct gw_sa *sa, const struct gw_sa_params *params)
{
	static const uint32_t iv_flags[] = {
		[GW_CIPHER_NULL] = 0,
		[GW_CIPHER_CBC] = GW_SA_RANDOM_IV,
		[GW_CIPHER_CTR] = GW_SA_COUNTER_IV,
		[GW_CIPHER_GCM] = GW_SA_COUNTER_IV,
		[GW_CIPHER_GMAC] = GW_SA_COUNTER_IV,
		[GW_CIPHER_CCM] = GW_SA_COUNTER_IV,
		[GW_CIPHER_CHACHA20_POLY1305] = GW_SA_COUNTER_IV,
	};

	return iv_flags[sa->suite.cipher] | (params->mode == GW_TUNNEL ? GW_SA_TUNNEL : 0u) |
	       (sa->rest->udp_source_port ? GW_SA_UDP : 0u) | (sa->ah_bytes ? GW_SA_AH : 0u) |
	       (sa->rest->family == 6 ? GW_SA_IPV6 : 0u);
}

static void copy_params(struct gw_sa *sa, const struct gw_sa_params *params,
			const struct gw_suite *suite)
{
	bool mac_has_salt = suite->mac == GW_MAC_GMAC;
	const uint8_t *material = mac_has_salt ? params->integrity_key : params->encryption_key;
	uint8_t key_bytes = mac_has_salt ? suite->mac_key_bytes : suite->key_bytes;

	sa->suite = *suite;
	sa->inbound = params->direction == GW_INBOUND;
	sa->esn = params->esn != 0;
	sa->rest->family = params->family;
	sa->ah_bytes = params->protocol == GW_PROTOCOL_AH ? gw_ah_bytes(suite, params->family) : 0;
	sa->rest->path_mtu = params->path_mtu;
	sa->rest->cookie = params->cookie;
	sa->rest->udp_source_port = params->udp_source_port;
	sa->rest->udp_destination_port = params->udp_destination_port;
	memcpy(sa->salt, material + key_bytes, suite->salt_bytes);
	memcpy(sa->rest->source, params->source, sizeof(sa->rest->source));
	sa->rest->source_port = params->udp_source_port;
}

/* What an outbound SA needs of its own; sizes are those of the suite. */
static void set_sending(struct gw_sa *sa, const struct gw_sa_params *params)
{
	memcpy(sa->rest->destination, params->destination, sizeof(sa->rest->destination));
	sa->prepare = gw_choose_prepare(sa->ah_bytes != 0, params->mode);
	sa->out.df = params->df;
	sa->out.tos_mask = params->copy_dscp ? 0xff : GW_ECN;
	sa->rest->wanted_tfc_bytes = params->mode == GW_TUNNEL ? params->tfc_bytes : 0;
	gw_set_template(sa, params->spi, params->source);
	set_sizes(sa);
}

static void set_receiving(struct gw_sa *sa, const struct gw_sa_params *params, uint64_t *blocks)
{
	memcpy(sa->in.destination, params->destination, sizeof(sa->in.destination));
	sa->in.replay = (struct gw_replay){
		.blocks = blocks,
		.mask = window_blocks(params->replay_window) - 1,
		.size = params->replay_window,
	};
	sa->in.plain = gw_selectors_plain(&sa->rest->selectors);
}

/* --- where it is: all that packets read in one piece, so that few pages are touched */

struct record {
	size_t key_bytes;
	size_t window_bytes;
	uint16_t lines;
};

static size_t whole_lines(size_t bytes)
{
	return (bytes + GW_LINE - 1) / GW_LINE * GW_LINE;
}

static struct record plan_record(const struct gw_crypto_library *library,
				 const struct gw_suite *suite, const struct gw_sa_params *params)
{
	struct record record = {.key_bytes = whole_lines(library->key_bytes(suite))};

	if (params->direction == GW_INBOUND)
		record.window_bytes = window_blocks(params->replay_window) * sizeof(uint64_t);
	/* An odd number, so that the first lines of many do not meet in the same sets of a cache. */
	record.lines = (uint16_t)((sizeof(struct gw_sa) + record.key_bytes +
				   whole_lines(record.window_bytes)) /
					  GW_LINE |
				  1);
	return record;
}

static struct gw_sa *take_record(struct gw_worker *worker, const struct record *record)
{
	struct gw_sa *sa = gw_slab_take(&worker->records[record->lines]);

	if (!sa)
		return NULL;
	sa->rest = gw_slab_take(&worker->rests);
	if (!sa->rest) {
		gw_slab_give(&worker->records[record->lines], sa);
		return NULL;
	}
	sa->rest->record_lines = record->lines;
	if (record->key_bytes)
		sa->keys = sa + 1;
	return sa;
}

static void free_sa(struct gw_worker *worker, struct gw_sa *sa)
{
	struct gw_sa_rest *rest = sa->rest;

	if (rest->clear)
		rest->clear(sa);
	gw_selectors_clear(&rest->selectors);
	gw_slab_give(&worker->records[rest->record_lines], sa);
	gw_slab_give(&worker->rests, rest);
}

static enum gw_error build(struct gw_worker *worker, const struct gw_sa_params *params,
			   struct gw_sa **built)
{
	const struct gw_crypto_library *library;
	struct gw_suite suite;
	struct record record;
	struct gw_sa *sa;
	enum gw_error error = gw_suite_find(params->protocol, params->encryption, params->integrity,
					    params->key_bits, &suite);

	if (error == GW_OK)
		error = check_keys(&suite, params);
	if (error != GW_OK)
		return error;
	library = gw_crypto_choose(&suite, params->crypto ? params->crypto : worker->crypto);
	if (!library)
		return GW_E_UNSUPPORTED;
	record = plan_record(library, &suite, params);
	sa = take_record(worker, &record);
	if (!sa)
		return GW_E_MEMORY;
	copy_params(sa, params, &suite);
	sa->rest->crypto = (uint8_t)library->id;
	if (!gw_selectors_init(&sa->rest->selectors, params->selectors, params->local_selectors,
			       params->remote_selectors)) {
		free_sa(worker, sa);
		return GW_E_MEMORY;
	}
	if (sa->inbound)
		set_receiving(sa, params, (void *)((uint8_t *)(sa + 1) + record.key_bytes));
	else
		set_sending(sa, params);
	error = library->init(worker, sa, params);
	if (error != GW_OK) {
		free_sa(worker, sa);
		return error;
	}
	*built = sa;
	return GW_OK;
}

static struct gw_hot *find_place(const struct gw_worker *worker, const struct gw_sa_params *params,
				 uint32_t *ref)
{
	if (params->direction == GW_INBOUND) {
		uint32_t index = params->spi & worker->inbound_mask;

		*ref = GW_REF_INBOUND | index;
		return &worker->inbound[index];
	}
	*ref = params->index;
	return params->index < worker->outbound_sas ? &worker->outbound[params->index] : NULL;
}

static size_t window_bytes(const struct gw_replay *replay)
{
	return ((size_t)replay->mask + 1) * sizeof(uint64_t);
}

/* Fail closed: what cannot be told apart was received. */
static void restore_window(struct gw_replay *replay, const struct gw_sa_state *state)
{
	if (state->window_packets == replay->size) {
		memcpy(replay->blocks, state->window, window_bytes(replay));
		return;
	}
	memset(replay->blocks, 0xff, window_bytes(replay));
	/* Of the highest number's block, those to its right are still to come; other blocks are entered anew. */
	replay->blocks[state->sequence / 64 & replay->mask] >>= 63 - state->sequence % 64;
}

static void restore(struct gw_hot *hot, const struct gw_sa_state *state)
{
	struct gw_sa *sa = hot->sa;

	hot->packets = state->packets;
	hot->bytes = state->bytes;
	/* Never back: an outbound number is an IV. */
	if (state->sequence > hot->sequence)
		hot->sequence = state->sequence;
	sa->last_used_ns = state->last_used_ns;
	memcpy(sa->rest->drops, state->drops, sizeof(sa->rest->drops));
	/* Whether more numbers were asked for is found anew from what is left of them. */
	sa->rest->told = (uint32_t)state->told & ~(uint32_t)GW_EVENT_RESERVE;
	if (sa->rest->told & (GW_EVENT_HARD_PACKETS | GW_EVENT_HARD_BYTES))
		hot->flags |= GW_SA_EXPIRED;
	if (sa->inbound)
		restore_window(&sa->in.replay, state);
}

enum gw_error gw_sa_add(struct gw_worker *worker, const struct gw_sa_params *params,
			const struct gw_sa_state *state, uint32_t *ref)
{
	struct gw_hot *hot;
	struct gw_sa *sa;
	enum gw_error error;

	if (!checks_out(params))
		return GW_E_INVALID;
	hot = find_place(worker, params, ref);
	if (!hot)
		return GW_E_INVALID;
	if (hot->sa)
		return GW_E_TAKEN;
	error = build(worker, params, &sa);
	if (error != GW_OK)
		return error;
	sa->rest->ref = *ref;
	*hot = (struct gw_hot){.sa = sa, .spi = params->spi, .flags = flags_of(sa, params)};
	if (!sa->inbound)
		hot->sequence = params->next_sequence - 1;
	if (state)
		restore(hot, state);
	gw_usage_init(hot, params);
	return GW_OK;
}

enum gw_error gw_sa_restore(struct gw_worker *worker, uint32_t ref, const struct gw_sa_state *state)
{
	struct gw_hot *hot = gw_find_hot(worker, ref);

	if (!hot)
		return GW_E_NO_SA;
	restore(hot, state);
	gw_usage_resume(hot);
	return GW_OK;
}

/* --- taking out */

enum gw_error gw_sa_save(const struct gw_worker *worker, uint32_t ref, struct gw_sa_state *state)
{
	const struct gw_hot *hot = gw_find_hot(worker, ref);

	if (!hot)
		return GW_E_NO_SA;
	memset(state, 0, sizeof(*state));
	state->sequence = hot->sequence;
	state->packets = hot->packets;
	state->bytes = hot->bytes;
	if (hot->sa->inbound) {
		const struct gw_replay *replay = &hot->sa->in.replay;

		state->window_packets = replay->size;
		memcpy(state->window, replay->blocks, window_bytes(replay));
	}
	state->last_used_ns = hot->sa->last_used_ns;
	memcpy(state->drops, hot->sa->rest->drops, sizeof(state->drops));
	/* What waits to be drained is told by whoever goes on. */
	state->told = hot->sa->rest->told & ~hot->sa->rest->events;
	return GW_OK;
}

enum gw_error gw_sa_release(struct gw_worker *worker, uint32_t ref, struct gw_sa_state *state)
{
	enum gw_error error = gw_sa_save(worker, ref, state);

	return error == GW_OK ? gw_sa_remove(worker, ref) : error;
}

enum gw_error gw_sa_remove(struct gw_worker *worker, uint32_t ref)
{
	struct gw_hot *hot = gw_find_hot(worker, ref);

	if (!hot)
		return GW_E_NO_SA;
	if (!hot->sa->inbound)
		gw_leave_tunnels(worker, ref);
	gw_forget_events(worker, hot->sa);
	free_sa(worker, hot->sa);
	*hot = (struct gw_hot){0};
	return GW_OK;
}

/* --- while it lives */

enum gw_error gw_sa_reserve(struct gw_worker *worker, uint32_t ref, uint64_t sequence_limit)
{
	struct gw_hot *hot = gw_find_outbound(worker, ref);

	if (!hot)
		return GW_E_NO_SA;
	if (sequence_limit < hot->sa->rest->sequence_limit)
		return GW_E_INVALID;
	gw_usage_reserve(hot, sequence_limit);
	return GW_OK;
}

enum gw_error gw_sa_move(struct gw_worker *worker, uint32_t ref, const uint8_t destination[16],
			 uint16_t port)
{
	const struct gw_hot *hot = gw_find_outbound(worker, ref);
	size_t bytes;
	uint8_t source[16];
	struct gw_sa *sa;

	if (!hot)
		return GW_E_NO_SA;
	sa = hot->sa;
	bytes = sa->rest->family == 4 ? 4 : 16;
	if (!(hot->flags & GW_SA_UDP) || port == 0)
		return GW_E_INVALID;
	if (!(hot->flags & GW_SA_TUNNEL) && memcmp(destination, sa->rest->destination, bytes) != 0)
		return GW_E_INVALID;
	memcpy(sa->rest->destination, destination, bytes);
	memcpy(source, sa->rest->source, sizeof(source));
	sa->rest->udp_destination_port = port;
	gw_set_template(sa, hot->spi, source);
	return GW_OK;
}

enum gw_error gw_sa_set_path_mtu(struct gw_worker *worker, uint32_t ref, uint16_t path_mtu)
{
	const struct gw_hot *hot = gw_find_outbound(worker, ref);

	if (!hot)
		return GW_E_NO_SA;
	hot->sa->rest->path_mtu = path_mtu;
	set_sizes(hot->sa);
	return GW_OK;
}

static uint32_t effective_mtu(const struct gw_hot *hot)
{
	const struct gw_sa *sa = hot->sa;

	if (sa->inbound || !sa->rest->path_mtu || !sa->out.max_payload)
		return 0;
	if (hot->flags & GW_SA_TUNNEL)
		return sa->out.max_payload;
	return sa->out.max_payload + (sa->rest->family == 4 ? GW_IPV4_BYTES : GW_IPV6_BYTES);
}

enum gw_error gw_sa_read(const struct gw_worker *worker, uint32_t ref, struct gw_sa_usage *usage)
{
	const struct gw_hot *hot = gw_find_hot(worker, ref);

	if (!hot)
		return GW_E_NO_SA;
	memset(usage, 0, sizeof(*usage));
	usage->sequence = hot->sequence;
	usage->packets = hot->packets;
	usage->bytes = hot->bytes;
	usage->last_used_ns = hot->sa->last_used_ns;
	memcpy(usage->drops, hot->sa->rest->drops, sizeof(usage->drops));
	usage->effective_mtu = effective_mtu(hot);
	usage->crypto = hot->sa->rest->crypto;
	usage->expired = (hot->flags & GW_SA_EXPIRED) != 0;
	return GW_OK;
}
