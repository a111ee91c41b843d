/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AES-256-CTR with fast key erasure: each refill makes one pool of key stream, whose first bytes
 * become the next key and whose rest is given out and wiped. What was given out cannot be computed
 * from what is kept.
 */
#include "entropy.h"

#include <openssl/evp.h>
#include <stdlib.h>

#include "bytes.h"

#define KEY_BYTES  32
#define POOL_BYTES 4096

struct gw_entropy {
	EVP_CIPHER_CTX *cipher;
	size_t used; /* bytes of the pool that are gone */
	uint8_t pool[POOL_BYTES];
};

static bool refill(struct gw_entropy *entropy)
{
	static const uint8_t counter[16];
	int bytes = 0;

	if (EVP_EncryptInit_ex(entropy->cipher, EVP_aes_256_ctr(), NULL, entropy->pool, counter) !=
	    1)
		return false;
	memset(entropy->pool, 0, POOL_BYTES);
	if (EVP_EncryptUpdate(entropy->cipher, entropy->pool, &bytes, entropy->pool, POOL_BYTES) !=
		    1 ||
	    bytes != POOL_BYTES)
		return false;
	entropy->used = KEY_BYTES;
	return true;
}

struct gw_entropy *gw_entropy_new(const uint8_t seed[32])
{
	struct gw_entropy *entropy = calloc(1, sizeof(*entropy));

	if (!entropy)
		return NULL;
	entropy->cipher = EVP_CIPHER_CTX_new();
	entropy->used = POOL_BYTES;
	memcpy(entropy->pool, seed, KEY_BYTES);
	if (!entropy->cipher) {
		gw_entropy_free(entropy);
		return NULL;
	}
	return entropy;
}

void gw_entropy_free(struct gw_entropy *entropy)
{
	if (!entropy)
		return;
	EVP_CIPHER_CTX_free(entropy->cipher);
	gw_wipe(entropy, sizeof(*entropy));
	free(entropy);
}

bool gw_entropy_take(struct gw_entropy *entropy, uint8_t *to, size_t bytes)
{
	if (GW_UNLIKELY(entropy->used + bytes > POOL_BYTES) && !refill(entropy))
		return false;
	memcpy(to, entropy->pool + entropy->used, bytes);
	gw_wipe(entropy->pool + entropy->used, bytes);
	entropy->used += bytes;
	return true;
}
