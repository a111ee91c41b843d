/* SPDX-License-Identifier: Apache-2.0 */
/* Vectors of RFCs, drafts and Wycheproof against each crypto library, both ways. */
#include <stdlib.h>

#include "crypto.h"
#include "ip.h"
#include "tap.h"

struct vector {
	const char *name;
	uint8_t protocol;
	uint16_t encryption, integrity, key_bits;
	const char *key, *mac_key, *iv, *aad, *text,
		*sealed; /* hexadecimal; sealed: text and ICV */
	int valid;
};

struct step {
	uint32_t low;
	enum gw_drop_reason verdict;
	uint64_t sequence;
};

struct replay_case {
	const char *name;
	uint16_t window;
	int esn;
	size_t steps;
	const struct step *step;
};

#include "vectors.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define MAX_BYTES     2048

static size_t unhex(const char *text, uint8_t *to)
{
	size_t bytes = strlen(text) / 2;

	for (size_t i = 0; i < bytes; i++) {
		unsigned int value = 0;

		sscanf(text + 2 * i, "%2x", &value);
		to[i] = (uint8_t)value;
	}
	return bytes;
}

/* --- crypto */

static enum gw_error add(struct gw_worker *worker, const struct vector *vector,
			 enum gw_crypto crypto, enum gw_direction direction, uint32_t *ref)
{
	struct gw_sa_params params = {
		.spi = 0x1000,
		.direction = (uint8_t)direction,
		.protocol = vector->protocol,
		.family = 4,
		.encryption = vector->encryption,
		.integrity = vector->integrity,
		.key_bits = vector->key_bits,
		.crypto = (uint8_t)crypto,
		.replay_window = 64,
		.esn = vector->protocol == GW_PROTOCOL_ESP && strlen(vector->aad) == 24,
		.next_sequence = 1,
		.sequence_limit = GW_NEVER,
	};

	params.encryption_key_bytes = (uint16_t)unhex(vector->key, params.encryption_key);
	params.integrity_key_bytes = (uint16_t)unhex(vector->mac_key, params.integrity_key);
	return gw_sa_add(worker, &params, NULL, ref);
}

/* Lay the vector out as a packet: SPI, number, IV, text, ICV; AH's data and ICV apart. */
struct layout {
	uint8_t bytes[MAX_BYTES];
	uint8_t iv[16];
	uint8_t icv[64];
	uint8_t text[MAX_BYTES];
	uint8_t sealed[MAX_BYTES];
	size_t text_bytes;
};

static struct gw_op lay_out(struct layout *layout, const struct vector *vector, struct gw_sa *sa)
{
	uint8_t aad[MAX_BYTES];
	size_t aad_bytes = unhex(vector->aad, aad), iv_bytes = unhex(vector->iv, layout->iv);
	struct gw_op op = {.sa = sa, .auth = layout->bytes + 8, .iv = layout->iv};

	layout->text_bytes = unhex(vector->text, layout->text);
	unhex(vector->sealed, layout->sealed);
	if (vector->protocol == GW_PROTOCOL_AH) {
		memcpy(op.auth, aad, aad_bytes);
		op.auth_bytes = (uint32_t)aad_bytes;
		op.text = op.auth;
		op.icv = layout->icv;
		return op;
	}
	memcpy(op.auth, aad, 4);
	memcpy(op.auth + 4, aad + aad_bytes - 4, 4);
	op.sequence = gw_load32(aad + aad_bytes - 4);
	if (aad_bytes == 12)
		op.sequence |= (uint64_t)gw_load32(aad + 4) << 32;
	memcpy(op.auth + 8, layout->iv, iv_bytes);
	op.text = op.auth + 8 + iv_bytes;
	op.text_bytes = (uint32_t)layout->text_bytes;
	op.auth_bytes = (uint32_t)(8 + iv_bytes + layout->text_bytes);
	op.icv = op.text + op.text_bytes;
	return op;
}

static bool seals(struct gw_worker *worker, const struct vector *vector, struct gw_sa *sa)
{
	struct layout *layout = calloc(1, sizeof(*layout));
	struct gw_op op = lay_out(layout, vector, sa);
	bool good;

	memcpy(op.text, layout->text, vector->protocol == GW_PROTOCOL_AH ? 0 : layout->text_bytes);
	sa->run(worker, &op, 1);
	good = !op.failed && memcmp(op.text, layout->sealed, op.text_bytes) == 0 &&
	       memcmp(op.icv, layout->sealed + op.text_bytes, sa->suite.icv_bytes) == 0;
	free(layout);
	return good;
}

static bool opens(struct gw_worker *worker, const struct vector *vector, struct gw_sa *sa)
{
	struct layout *layout = calloc(1, sizeof(*layout));
	struct gw_op op = lay_out(layout, vector, sa);
	bool good;

	memcpy(op.text, layout->sealed, op.text_bytes);
	memcpy(op.icv, layout->sealed + op.text_bytes, sa->suite.icv_bytes);
	sa->run(worker, &op, 1);
	good = (op.failed == 0) == (vector->valid != 0) &&
	       (!vector->valid || memcmp(op.text, layout->text, op.text_bytes) == 0);
	free(layout);
	return good;
}

static void check_vector(struct gw_worker *worker, const struct vector *vector,
			 enum gw_crypto crypto)
{
	uint32_t out, in;
	bool added = add(worker, vector, crypto, GW_OUTBOUND, &out) == GW_OK &&
		     add(worker, vector, crypto, GW_INBOUND, &in) == GW_OK;
	char name[128];

	snprintf(name, sizeof(name), "%s by %s", vector->name,
		 crypto == GW_CRYPTO_IPSECMB ? "ipsec-mb" : "OpenSSL");
	tap_check(added &&
			  (!vector->valid || seals(worker, vector, gw_find_hot(worker, out)->sa)) &&
			  opens(worker, vector, gw_find_hot(worker, in)->sa),
		  name);
	if (!added)
		return;
	gw_sa_remove(worker, out);
	gw_sa_remove(worker, in);
}

static void check_crypto(enum gw_crypto crypto)
{
	struct gw_worker_config config = {.inbound_bits = 4, .outbound_sas = 4, .seed = {7}};
	enum gw_error error;
	struct gw_worker *worker = gw_worker_new(&config, &error);

	for (size_t i = 0; worker && i < LENGTH(vectors); i++) {
		const struct vector *vector = &vectors[i];

		if (gw_suite_crypto(vector->protocol, vector->encryption, vector->integrity,
				    vector->key_bits, crypto) == (int)crypto)
			check_vector(worker, vector, crypto);
	}
	tap_check(worker != NULL, "a worker");
	gw_worker_free(worker);
}

/* --- the replay window */

static bool follows(const struct replay_case *table)
{
	uint64_t blocks[GW_MAX_WINDOW_BLOCKS] = {0}, highest = 0;
	struct gw_replay window = {.blocks = blocks, .mask = 0, .size = table->window};

	while ((window.mask + 1) * 64 < window.size + 64u)
		window.mask = window.mask * 2 + 1;
	for (size_t i = 0; i < table->steps; i++) {
		const struct step *step = &table->step[i];
		uint64_t sequence;
		enum gw_drop_reason reason =
			gw_replay_check(&window, highest, table->esn != 0, step->low, &sequence);

		if (reason != step->verdict)
			return false;
		if (reason == GW_DROP_NONE &&
		    (sequence != step->sequence ||
		     gw_replay_commit(&window, &highest, sequence) != GW_DROP_NONE ||
		     (window.size &&
		      gw_replay_commit(&window, &highest, sequence) != GW_DROP_REPLAY)))
			return false;
	}
	return true;
}

int main(void)
{
	for (size_t i = 0; i < LENGTH(replay_cases); i++)
		tap_check(follows(&replay_cases[i]), replay_cases[i].name);
	if (gw_crypto_name(GW_CRYPTO_IPSECMB)[0])
		check_crypto(GW_CRYPTO_IPSECMB);
	check_crypto(GW_CRYPTO_OPENSSL);
	return tap_end();
}
