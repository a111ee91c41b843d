/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Suites by OpenSSL's EVP, one packet after another: for CPUs without ipsec-mb, and as its second
 * opinion. Contexts are made when an SA is added and only get a new IV for each packet.
 */
#include "crypto.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/opensslv.h>
#include <stdlib.h>

struct keys {
	EVP_CIPHER_CTX *cipher;
	EVP_MAC_CTX *mac;
};

static const char *name(void)
{
	return OPENSSL_VERSION_TEXT;
}

static bool has(const struct gw_suite *suite)
{
	/* EVP has no AES-XCBC-MAC-96. */
	return suite->mac != GW_MAC_XCBC;
}

static enum gw_error start(struct gw_worker *worker)
{
	(void)worker;
	return GW_OK;
}

static void stop(struct gw_worker *worker)
{
	(void)worker;
}

static bool set_iv(struct keys *keys, const uint8_t *iv, bool inbound)
{
	return EVP_CipherInit_ex(keys->cipher, NULL, NULL, NULL, iv, !inbound) == 1;
}

static bool update(struct keys *keys, uint8_t *to, const uint8_t *from, uint32_t bytes)
{
	int written = 0;

	return EVP_CipherUpdate(keys->cipher, to, &written, from, (int)bytes) == 1;
}

static bool finish(struct keys *keys)
{
	uint8_t nothing[32];
	int written = 0;

	return EVP_CipherFinal_ex(keys->cipher, nothing, &written) == 1;
}

static bool set_tag(struct keys *keys, const struct gw_op *op)
{
	return EVP_CIPHER_CTX_ctrl(keys->cipher, EVP_CTRL_AEAD_SET_TAG, op->sa->suite.icv_bytes,
				   op->icv) == 1;
}

static bool get_tag(struct keys *keys, const struct gw_op *op)
{
	return EVP_CIPHER_CTX_ctrl(keys->cipher, EVP_CTRL_AEAD_GET_TAG, op->sa->suite.icv_bytes,
				   op->icv) == 1;
}

/* --- AEADs: GCM and ChaCha20-Poly1305 (RFC 4106, RFC 7634) */

static bool aead(const struct gw_op *op)
{
	struct keys *keys = op->sa->keys;
	bool inbound = op->sa->inbound;
	uint8_t nonce[16], buffer[16];
	uint32_t aad_bytes;
	const uint8_t *aad = gw_make_aad(buffer, op, &aad_bytes);

	gw_make_nonce(nonce, op);
	return set_iv(keys, nonce, inbound) && (!inbound || set_tag(keys, op)) &&
	       update(keys, NULL, aad, aad_bytes) &&
	       update(keys, op->text, op->text, op->text_bytes) && finish(keys) &&
	       (inbound || get_tag(keys, op));
}

/* --- GMAC: everything is associated data (RFC 4543) */

static bool gmac(const struct gw_op *op, uint8_t *cover, uint32_t bytes)
{
	struct keys *keys = op->sa->keys;
	bool inbound = op->sa->inbound;
	uint8_t nonce[16];

	gw_make_nonce(nonce, op);
	return set_iv(keys, nonce, inbound) && (!inbound || set_tag(keys, op)) &&
	       update(keys, NULL, cover, bytes) && finish(keys) && (inbound || get_tag(keys, op));
}

static bool esp_gmac(const struct gw_op *op)
{
	struct gw_gmac_cover cover = gw_gmac_widen(op);
	bool good = gmac(op, cover.start, cover.bytes);

	gw_gmac_narrow(op, &cover);
	return good;
}

static bool ah_gmac(const struct gw_op *op)
{
	uint32_t bytes = op->auth_bytes;

	if (op->sa->esn) {
		gw_store32(op->auth + bytes, (uint32_t)(op->sequence >> 32));
		bytes += 4;
	}
	return gmac(op, op->auth, bytes);
}

/* --- CCM (RFC 4309): lengths come first, and opening is one call */

static bool ccm(const struct gw_op *op)
{
	struct keys *keys = op->sa->keys;
	bool inbound = op->sa->inbound;
	uint8_t nonce[16], buffer[16];
	uint32_t aad_bytes;
	const uint8_t *aad = gw_make_aad(buffer, op, &aad_bytes);

	memcpy(nonce, op->sa->salt, 3);
	memcpy(nonce + 3, op->iv, 8);
	if (inbound && !set_tag(keys, op))
		return false;
	if (!set_iv(keys, nonce, inbound) || !update(keys, NULL, NULL, op->text_bytes) ||
	    !update(keys, NULL, aad, aad_bytes) ||
	    !update(keys, op->text, op->text, op->text_bytes))
		return false;
	return inbound || get_tag(keys, op);
}

/* --- a cipher with a separate MAC (RFC 3602, RFC 3686, RFC 2410), and AH */

static bool compute_mac(const struct gw_op *op, uint8_t mac[EVP_MAX_MD_SIZE])
{
	struct keys *keys = op->sa->keys;
	uint8_t high[4];
	size_t bytes = 0;

	gw_store32(high, (uint32_t)(op->sequence >> 32));
	return EVP_MAC_init(keys->mac, NULL, 0, NULL) == 1 &&
	       EVP_MAC_update(keys->mac, op->auth, op->auth_bytes) == 1 &&
	       (!op->sa->esn || EVP_MAC_update(keys->mac, high, sizeof(high)) == 1) &&
	       EVP_MAC_final(keys->mac, mac, &bytes, EVP_MAX_MD_SIZE) == 1 &&
	       bytes >= op->sa->suite.icv_bytes;
}

static bool encipher(const struct gw_op *op)
{
	struct keys *keys = op->sa->keys;
	uint8_t block[16];

	if (op->sa->suite.cipher == GW_CIPHER_NULL)
		return true;
	if (op->sa->suite.cipher == GW_CIPHER_CTR)
		gw_make_ctr_block(block, op);
	else
		memcpy(block, op->iv, sizeof(block));
	return set_iv(keys, block, op->sa->inbound) &&
	       update(keys, op->text, op->text, op->text_bytes);
}

static bool separate(const struct gw_op *op)
{
	uint8_t mac[EVP_MAX_MD_SIZE];

	if (op->sa->inbound)
		return compute_mac(op, mac) && !gw_differs(mac, op->icv, op->sa->suite.icv_bytes) &&
		       encipher(op);
	if (!encipher(op) || !compute_mac(op, mac))
		return false;
	memcpy(op->icv, mac, op->sa->suite.icv_bytes);
	return true;
}

/* --- the choice, once per SA */

#define RUN(one) \
	static void run_##one(struct gw_worker *worker, struct gw_op *ops, size_t count) \
	{ \
		(void)worker; \
		for (size_t i = 0; i < count; i++) \
			ops[i].failed = !one(&ops[i]); \
	}

RUN(aead)
RUN(esp_gmac)
RUN(ah_gmac)
RUN(ccm)
RUN(separate)

static gw_crypto_run find_run(const struct gw_suite *suite)
{
	static const gw_crypto_run by_cipher[] = {
		[GW_CIPHER_NULL] = run_separate,          [GW_CIPHER_CBC] = run_separate,
		[GW_CIPHER_CTR] = run_separate,           [GW_CIPHER_GCM] = run_aead,
		[GW_CIPHER_GMAC] = run_esp_gmac,          [GW_CIPHER_CCM] = run_ccm,
		[GW_CIPHER_CHACHA20_POLY1305] = run_aead,
	};

	return suite->mac == GW_MAC_GMAC ? run_ah_gmac : by_cipher[suite->cipher];
}

static const EVP_CIPHER *find_cipher(const struct gw_suite *suite)
{
	unsigned int size =
		(suite->mac == GW_MAC_GMAC ? suite->mac_key_bytes : suite->key_bytes) / 8 - 2;
	static const EVP_CIPHER *(*const aes[][3])(void) = {
		[GW_CIPHER_CBC] = {EVP_aes_128_cbc, EVP_aes_192_cbc, EVP_aes_256_cbc},
		[GW_CIPHER_CTR] = {EVP_aes_128_ctr, EVP_aes_192_ctr, EVP_aes_256_ctr},
		[GW_CIPHER_GCM] = {EVP_aes_128_gcm, EVP_aes_192_gcm, EVP_aes_256_gcm},
		[GW_CIPHER_GMAC] = {EVP_aes_128_gcm, EVP_aes_192_gcm, EVP_aes_256_gcm},
		[GW_CIPHER_CCM] = {EVP_aes_128_ccm, EVP_aes_192_ccm, EVP_aes_256_ccm},
	};

	if (suite->cipher == GW_CIPHER_CHACHA20_POLY1305)
		return EVP_chacha20_poly1305();
	if (suite->mac == GW_MAC_GMAC)
		return aes[GW_CIPHER_GCM][size]();
	return aes[suite->cipher][size]();
}

static bool init_cipher(struct keys *keys, struct gw_sa *sa, const uint8_t *key)
{
	const struct gw_suite *suite = &sa->suite;

	keys->cipher = EVP_CIPHER_CTX_new();
	if (!keys->cipher || EVP_CipherInit_ex(keys->cipher, find_cipher(suite), NULL, NULL, NULL,
					       !sa->inbound) != 1)
		return false;
	if (suite->cipher == GW_CIPHER_CCM &&
	    (EVP_CIPHER_CTX_ctrl(keys->cipher, EVP_CTRL_AEAD_SET_IVLEN, 11, NULL) != 1 ||
	     EVP_CIPHER_CTX_ctrl(keys->cipher, EVP_CTRL_AEAD_SET_TAG, suite->icv_bytes, NULL) != 1))
		return false;
	if (EVP_CipherInit_ex(keys->cipher, NULL, NULL, key, NULL, !sa->inbound) != 1)
		return false;
	/* ESP has a trailer of its own. */
	return EVP_CIPHER_CTX_set_padding(keys->cipher, 0) == 1;
}

static bool init_mac(struct keys *keys, const struct gw_suite *suite, const uint8_t *key)
{
	static const char *const digests[] = {
		[GW_MAC_HMAC_SHA1] = "SHA1",
		[GW_MAC_HMAC_SHA256] = "SHA256",
		[GW_MAC_HMAC_SHA384] = "SHA384",
		[GW_MAC_HMAC_SHA512] = "SHA512",
	};
	bool is_cmac = suite->mac == GW_MAC_CMAC;
	const char *inner = is_cmac ? "AES-128-CBC" : digests[suite->mac];
	OSSL_PARAM options[] = {
		OSSL_PARAM_construct_utf8_string(is_cmac ? OSSL_MAC_PARAM_CIPHER
							 : OSSL_MAC_PARAM_DIGEST,
						 (char *)(uintptr_t)inner, 0),
		OSSL_PARAM_construct_end(),
	};
	EVP_MAC *mac = EVP_MAC_fetch(NULL, is_cmac ? "CMAC" : "HMAC", NULL);

	keys->mac = mac ? EVP_MAC_CTX_new(mac) : NULL;
	EVP_MAC_free(mac);
	return keys->mac && EVP_MAC_init(keys->mac, key, suite->mac_key_bytes, options) == 1;
}

static size_t key_bytes(const struct gw_suite *suite)
{
	(void)suite;
	return 0;
}

static void clear(struct gw_sa *sa)
{
	struct keys *keys = sa->keys;

	/* Both wipe what they hold. */
	EVP_CIPHER_CTX_free(keys->cipher);
	EVP_MAC_CTX_free(keys->mac);
	free(keys);
	sa->keys = NULL;
}

static enum gw_error init(struct gw_worker *worker, struct gw_sa *sa,
			  const struct gw_sa_params *params)
{
	const struct gw_suite *suite = &sa->suite;
	bool has_mac = suite->mac != GW_MAC_NONE && suite->mac != GW_MAC_GMAC;
	bool has_cipher = suite->cipher != GW_CIPHER_NULL || suite->mac == GW_MAC_GMAC;
	const uint8_t *key =
		suite->mac == GW_MAC_GMAC ? params->integrity_key : params->encryption_key;
	struct keys *keys = calloc(1, sizeof(*keys));

	(void)worker;
	if (!keys)
		return GW_E_MEMORY;
	sa->keys = keys;
	sa->rest->clear = clear;
	sa->run = find_run(suite);
	if ((has_cipher && !init_cipher(keys, sa, key)) ||
	    (has_mac && !init_mac(keys, suite, params->integrity_key)))
		return GW_E_CRYPTO;
	return GW_OK;
}

const struct gw_crypto_library gw_openssl = {
	.id = GW_CRYPTO_OPENSSL,
	.name = name,
	.has = has,
	.start = start,
	.stop = stop,
	.key_bytes = key_bytes,
	.init = init,
};
