/* SPDX-License-Identifier: Apache-2.0 */
/* The crypto libraries behind one table. One is chosen once, when an SA is added. */
#ifndef GW_CRYPTO_H
#define GW_CRYPTO_H

#include "worker.h"

struct gw_crypto_library {
	enum gw_crypto id;
	/* Name and version; "" where this CPU cannot run it. */
	const char *(*name)(void);
	bool (*has)(const struct gw_suite *suite);
	/* Make what a worker needs; GW_OK also where nothing is needed. */
	enum gw_error (*start)(struct gw_worker *worker);
	void (*stop)(struct gw_worker *worker);
	/* How much memory behind an SA its keys want, on a line of its own; 0: the library has its own. */
	size_t (*key_bytes)(const struct gw_suite *suite);
	/*
	 * Expand the keys of an SA whose suite is set, into what `keys` points to if there is any;
	 * sets run, direct, and `clear` or keys where they are needed.
	 */
	enum gw_error (*init)(struct gw_worker *worker, struct gw_sa *sa,
			      const struct gw_sa_params *params);
};

extern const struct gw_crypto_library gw_openssl;
#ifdef GW_HAVE_IPSECMB
extern const struct gw_crypto_library gw_ipsecmb;
#endif

/**
 * gw_crypto_choose() - choose the library for a suite.
 * @suite: the algorithms.
 * @wanted: GW_CRYPTO_AUTO prefers ipsec-mb.
 *
 * Return: NULL where none has it, or not the one that is wanted.
 */
const struct gw_crypto_library *gw_crypto_choose(const struct gw_suite *suite,
						 enum gw_crypto wanted);

/**
 * gw_crypto_start() - start every library that this CPU runs.
 * @worker: being made.
 *
 * Return: GW_OK, GW_E_MEMORY or GW_E_CRYPTO; gw_crypto_stop is to be called in any case.
 */
enum gw_error gw_crypto_start(struct gw_worker *worker);

/**
 * gw_crypto_stop() - undo gw_crypto_start.
 * @worker: has no SAs any more.
 */
void gw_crypto_stop(struct gw_worker *worker);

/*
 * Twelve bytes from four and eight, in one store of sixteen: the library loads them as one vector,
 * and a load that spans two recent stores waits until both have left the store buffer.
 */
static inline void gw_join_12(uint8_t to[16], const uint8_t first[4], uint64_t last_be)
{
	typedef uint64_t pair __attribute__((vector_size(16)));
	uint32_t head;
	pair joined;

	memcpy(&head, first, sizeof(head));
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	joined = (pair){head | last_be << 32, last_be >> 32};
#else
	joined = (pair){(uint64_t)head << 32 | last_be >> 32, last_be << 32};
#endif
	memcpy(to, &joined, sizeof(joined));
}

/* The nonce of a counter mode: salt, then the IV as it is in the packet. */
static inline void gw_make_nonce(uint8_t nonce[16], const struct gw_op *op)
{
	uint64_t iv;

	memcpy(&iv, op->iv, sizeof(iv));
	gw_join_12(nonce, op->sa->salt, iv);
}

/* The associated data of an AEAD: SPI, then the sequence number in 32 or 64 bits (RFC 4106 §5). */
static inline const uint8_t *gw_make_aad(uint8_t aad[16], const struct gw_op *op, uint32_t *bytes)
{
	if (!op->sa->esn) {
		*bytes = 8;
		return op->auth;
	}
	gw_join_12(aad, op->auth, gw_be64(op->sequence));
	*bytes = 12;
	return aad;
}

/* The block counter of a packet starts at one (RFC 3686 §4). */
static inline void gw_make_ctr_block(uint8_t block[16], const struct gw_op *op)
{
	gw_make_nonce(block, op);
	gw_store32(block + 12, 1);
}

/*
 * ESP with AES-GMAC authenticates SPI, sequence number, IV and payload (RFC 4543 §3.1). With an ESN
 * the number has 64 bits there; to have it in one piece, SPI and high half stand four bytes further
 * left for a while.
 */
struct gw_gmac_cover {
	uint8_t *start;
	uint32_t bytes;
	uint8_t saved[8];
};

static inline struct gw_gmac_cover gw_gmac_widen(const struct gw_op *op)
{
	struct gw_gmac_cover cover = {.start = op->auth, .bytes = op->auth_bytes};

	if (!op->sa->esn)
		return cover;
	memcpy(cover.saved, op->auth - 4, 8);
	memmove(op->auth - 4, op->auth, 4);
	gw_store32(op->auth, (uint32_t)(op->sequence >> 32));
	cover.start -= 4;
	cover.bytes += 4;
	return cover;
}

static inline void gw_gmac_narrow(const struct gw_op *op, const struct gw_gmac_cover *cover)
{
	if (op->sa->esn)
		memcpy(op->auth - 4, cover->saved, 8);
}

#endif
