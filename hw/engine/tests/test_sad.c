/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory: what is refused leaves nothing behind, what is removed is wiped, a worker frees
 * everything.
 */
#include "samples.h"
#include "slab.h"
#include "tap.h"

static struct gw_sa_params gcm(enum gw_direction direction)
{
	return sample_sa(direction, 50, 20, 0, 256);
}

static enum gw_error add(struct gw_worker *worker, const struct gw_sa_params *params)
{
	uint32_t ref;

	return gw_sa_add(worker, params, NULL, &ref);
}

static void check_refusals(void)
{
	struct gw_worker *worker = sample_worker();
	struct gw_sa_params good = gcm(GW_OUTBOUND), bad;

#define REFUSED(change, error, name) \
	do { \
		bad = good; \
		change; \
		tap_check(add(worker, &bad) == (error), name); \
	} while (0)

	REFUSED(bad.spi = 255, GW_E_INVALID, "a reserved SPI");
	REFUSED(bad.direction = 2, GW_E_INVALID, "no such direction");
	REFUSED(bad.mode = 2, GW_E_INVALID, "no such mode");
	REFUSED(bad.family = 5, GW_E_INVALID, "no such family");
	REFUSED(bad.df = 3, GW_E_INVALID, "no such DF policy");
	REFUSED(bad.crypto = 3, GW_E_INVALID, "no such crypto library");
	REFUSED(bad.udp_source_port = 4500, GW_E_INVALID, "half an encapsulation");
	REFUSED(bad.next_sequence = 0, GW_E_INVALID, "sequence number 0");
	REFUSED(bad.sequence_limit = 0, GW_E_INVALID, "nothing reserved");
	REFUSED(bad.index = 8, GW_E_INVALID, "no such place");
	REFUSED(bad.selectors[1].family = 0, GW_E_INVALID, "a selector of no family");
	REFUSED(bad.local_selectors = GW_MAX_SELECTORS, GW_E_INVALID, "too many selectors");
	REFUSED(bad.protocol = 17, GW_E_UNSUPPORTED, "neither ESP nor AH");
	REFUSED(bad.encryption = 3, GW_E_UNSUPPORTED, "3DES");
	REFUSED(bad.encryption = 11, GW_E_UNSUPPORTED, "NULL without integrity");
	REFUSED(bad.integrity = 12, GW_E_UNSUPPORTED, "an AEAD with integrity beside it");
	REFUSED(bad.encryption = 12; bad.integrity = 11, GW_E_UNSUPPORTED, "GMAC beside CBC");
	REFUSED(bad.protocol = 51, GW_E_UNSUPPORTED, "AH that encrypts");
	REFUSED(bad.key_bits = 160, GW_E_KEY, "no such key length");
	REFUSED(bad.encryption_key_bytes = 32, GW_E_KEY, "no salt");
	REFUSED(bad.integrity_key_bytes = 1, GW_E_KEY, "an integrity key of an AEAD");
	good = gcm(GW_INBOUND);
	REFUSED(bad.replay_window = 63, GW_E_INVALID, "a window below 64");
	REFUSED(bad.replay_window = 4097, GW_E_INVALID, "a window above 4096");
	REFUSED(bad.replay_window = 0; bad.esn = 1, GW_E_INVALID, "ESN without a window");
	good = sample_sa(GW_OUTBOUND, 51, 11, 12, 0);
	REFUSED(bad.udp_source_port = bad.udp_destination_port = 4500, GW_E_INVALID, "AH in UDP");
	tap_check(add(worker, &good) == GW_OK, "what is right");
	tap_check(add(worker, &good) == GW_E_TAKEN, "a place that is taken");
	gw_worker_free(worker);
}

static bool holds(const void *memory, size_t bytes, const uint8_t *key, size_t key_bytes)
{
	const uint8_t *at = memory;

	for (size_t i = 0; i + key_bytes <= bytes; i++)
		if (memcmp(at + i, key, key_bytes) == 0)
			return true;
	return false;
}

static void check_wiping(void)
{
	struct gw_slab slab = {.bytes = 200};
	uint8_t *piece = gw_slab_take(&slab), *again;
	bool zero = true;

	memset(piece, 0xee, 200);
	gw_slab_give(&slab, piece);
	again = gw_slab_take(&slab);
	for (int i = 0; i < 200; i++)
		zero &= again[i] == 0;
	tap_check(zero, "a piece is given out zeroed");
	gw_slab_give(&slab, again);
	gw_slab_end(&slab);
#if !defined(__SANITIZE_ADDRESS__)
	{
		/* Only where a piece stays ours may it be read after it was given back. */
		struct gw_worker *worker = sample_worker();
		struct gw_sa_params params = gcm(GW_OUTBOUND);
		const struct gw_sa *sa;
		const void *keys;
		size_t bytes = 1008;
		uint32_t ref;

		params.crypto = GW_CRYPTO_IPSECMB;
		if (gw_sa_add(worker, &params, NULL, &ref) == GW_OK) {
			sa = gw_find_hot(worker, ref)->sa;
			keys = sa->keys;
			tap_check(holds(keys, bytes, params.encryption_key, 16),
				  "the key is there");
			gw_sa_remove(worker, ref);
			tap_check(!holds(keys, bytes, params.encryption_key, 8),
				  "and then it is not");
			tap_check(!holds(sa, sizeof(*sa), params.encryption_key + 32, 4),
				  "nor is the salt");
		}
		gw_worker_free(worker);
	}
#else
	(void)holds;
#endif
}

static void check_lives(void)
{
	struct gw_worker *worker = sample_worker();
	struct gw_sa_params params = gcm(GW_OUTBOUND);
	struct gw_event event;
	struct gw_sa_state state;
	uint32_t refs[8];
	bool good = true;

	params.soft_packets = 1;
	for (uint32_t i = 0; i < 8; i++) {
		struct sample sample;
		uint8_t packet[64];

		params.index = i;
		params.cookie = i;
		good &= gw_sa_add(worker, &params, NULL, &refs[i]) == GW_OK;
		sample = sample_of(packet, ip_packet(packet, &params, 4), GW_HEADROOM, GW_TAILROOM);
		sample.packet.ref = refs[i];
		good &= gw_seal_burst(worker, &sample.packet, 1, 1) == 1;
		free(sample.memory);
	}
	tap_check(good, "eight SAs send");
	tap_check(gw_tunnel_set(worker, 1, refs, 8) == GW_OK, "and share a tunnel");
	/* Removed from the middle, the ends, and while their events wait. */
	gw_sa_remove(worker, refs[3]);
	gw_sa_remove(worker, refs[7]);
	tap_check(gw_sa_release(worker, refs[0], &state) == GW_OK && state.sequence == 1,
		  "one is released");
	good = true;
	for (int i = 0; i < 5; i++)
		good &= gw_worker_drain_events(worker, &event, 1) == 1 && event.cookie != 3 &&
			event.cookie != 7 && event.cookie != 0;
	tap_check(good && gw_worker_drain_events(worker, &event, 1) == 0,
		  "the others' events are there");
	good = true;
	for (uint32_t hash = 0; hash < 16; hash++) {
		uint32_t ref = gw_tunnel_sa(worker, 1, hash << 28);

		good &= ref != refs[3] && ref != refs[7] && ref != refs[0] && ref != GW_NO_REF;
	}
	tap_check(good, "the tunnel has the others only");
	tap_check(gw_sa_remove(worker, refs[3]) == GW_E_NO_SA, "what is gone is gone");
	gw_worker_free(worker);
	gw_worker_free(NULL);
	tap_check(true, "a worker may be freed with SAs, and none may be freed");
}

static void check_workers(void)
{
	struct gw_worker_config config = {.inbound_bits = 25};
	enum gw_error error = GW_OK;

	tap_check(!gw_worker_new(&config, &error) && error == GW_E_INVALID, "too large a table");
	config = (struct gw_worker_config){.crypto = 3};
	tap_check(!gw_worker_new(&config, &error) && error == GW_E_INVALID,
		  "no such crypto library");
}

int main(void)
{
	check_refusals();
	check_wiping();
	check_lives();
	check_workers();
	return tap_end();
}
