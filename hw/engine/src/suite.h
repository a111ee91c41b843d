/* SPDX-License-Identifier: Apache-2.0 */
/* The algorithms of an SA: from IANA's transform IDs to sizes. Nothing about who computes them. */
#ifndef GW_SUITE_H
#define GW_SUITE_H

#include <stdint.h>

#include "gw_engine.h"

enum gw_cipher {
	GW_CIPHER_NULL,
	GW_CIPHER_CBC,
	GW_CIPHER_CTR,
	GW_CIPHER_GCM,
	GW_CIPHER_GMAC, /* in ESP: nothing is secret (RFC 4543) */
	GW_CIPHER_CCM,
	GW_CIPHER_CHACHA20_POLY1305,
};

enum gw_mac {
	GW_MAC_NONE, /* the cipher brings its own */
	GW_MAC_HMAC_SHA1,
	GW_MAC_HMAC_SHA256,
	GW_MAC_HMAC_SHA384,
	GW_MAC_HMAC_SHA512,
	GW_MAC_XCBC,
	GW_MAC_CMAC,
	GW_MAC_GMAC, /* in AH */
};

struct gw_suite {
	uint8_t cipher;        /* enum gw_cipher */
	uint8_t mac;           /* enum gw_mac */
	uint8_t key_bytes;     /* of the cipher, without salt */
	uint8_t mac_key_bytes; /* without salt */
	uint8_t salt_bytes;    /* of whichever has one */
	uint8_t iv_bytes;
	uint8_t icv_bytes;
	uint8_t alignment; /* of payload, padding and trailer */
};

/**
 * gw_suite_find() - look up the algorithms of an SA.
 * @protocol: 50 or 51.
 * @encryption: transform ID; ENCR_NULL for AH.
 * @integrity: transform ID.
 * @key_bits: of the cipher.
 * @suite: filled in.
 *
 * Return: GW_OK, GW_E_UNSUPPORTED, or GW_E_KEY: no such key length.
 */
enum gw_error gw_suite_find(uint8_t protocol, uint16_t encryption, uint16_t integrity,
			    uint16_t key_bits, struct gw_suite *suite);

#endif
