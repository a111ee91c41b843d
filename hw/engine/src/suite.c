/* SPDX-License-Identifier: Apache-2.0 */
#include "suite.h"

#include <stdbool.h>
#include <stddef.h>

#include "ip.h"

#define ENCR_NULL 11

struct cipher_row {
	uint16_t id;
	uint8_t cipher;
	uint8_t salt_bytes;
	uint8_t iv_bytes;
	uint8_t icv_bytes; /* 0: an integrity algorithm must come beside */
	uint8_t alignment;
	uint16_t key_bits[3];
};

#define AES_KEYS \
	{ \
		128, 192, 256 \
	}

/* RFC 3602, 3686, 4309, 4106, 4543, 7634, 2410. */
static const struct cipher_row ciphers[] = {
	{ENCR_NULL, GW_CIPHER_NULL, 0, 0, 0, 4, {0}},
	{12, GW_CIPHER_CBC, 0, 16, 0, 16, AES_KEYS},
	{13, GW_CIPHER_CTR, 4, 8, 0, 4, AES_KEYS},
	{14, GW_CIPHER_CCM, 3, 8, 8, 4, AES_KEYS},
	{15, GW_CIPHER_CCM, 3, 8, 12, 4, AES_KEYS},
	{16, GW_CIPHER_CCM, 3, 8, 16, 4, AES_KEYS},
	{18, GW_CIPHER_GCM, 4, 8, 8, 4, AES_KEYS},
	{19, GW_CIPHER_GCM, 4, 8, 12, 4, AES_KEYS},
	{20, GW_CIPHER_GCM, 4, 8, 16, 4, AES_KEYS},
	{21, GW_CIPHER_GMAC, 4, 8, 16, 4, AES_KEYS},
	{28, GW_CIPHER_CHACHA20_POLY1305, 4, 8, 16, 4, {256}},
};

struct mac_row {
	uint16_t id;
	uint8_t mac;
	uint8_t key_bytes;
	uint8_t icv_bytes;
	uint8_t salt_bytes;
	uint8_t iv_bytes;
};

/* RFC 2404, 3566, 4494, 4543 (AH only), 4868. */
static const struct mac_row macs[] = {
	{2, GW_MAC_HMAC_SHA1, 20, 12, 0, 0},    {5, GW_MAC_XCBC, 16, 12, 0, 0},
	{8, GW_MAC_CMAC, 16, 12, 0, 0},         {9, GW_MAC_GMAC, 16, 16, 4, 8},
	{10, GW_MAC_GMAC, 24, 16, 4, 8},        {11, GW_MAC_GMAC, 32, 16, 4, 8},
	{12, GW_MAC_HMAC_SHA256, 32, 16, 0, 0}, {13, GW_MAC_HMAC_SHA384, 48, 24, 0, 0},
	{14, GW_MAC_HMAC_SHA512, 64, 32, 0, 0},
};

static const struct cipher_row *find_cipher(uint16_t id)
{
	for (size_t i = 0; i < sizeof(ciphers) / sizeof(ciphers[0]); i++)
		if (ciphers[i].id == id)
			return &ciphers[i];
	return NULL;
}

static const struct mac_row *find_mac(uint16_t id)
{
	for (size_t i = 0; i < sizeof(macs) / sizeof(macs[0]); i++)
		if (macs[i].id == id)
			return &macs[i];
	return NULL;
}

static bool has_key_bits(const struct cipher_row *row, uint16_t key_bits)
{
	for (size_t i = 0; i < sizeof(row->key_bits) / sizeof(row->key_bits[0]); i++)
		if (row->key_bits[i] == key_bits && (key_bits != 0 || i == 0))
			return true;
	return false;
}

static enum gw_error find_ah(uint16_t encryption, const struct mac_row *mac, struct gw_suite *suite)
{
	if (encryption != ENCR_NULL || !mac)
		return GW_E_UNSUPPORTED;
	*suite = (struct gw_suite){
		.cipher = GW_CIPHER_NULL,
		.mac = mac->mac,
		.mac_key_bytes = mac->key_bytes,
		.salt_bytes = mac->salt_bytes,
		.iv_bytes = mac->iv_bytes,
		.icv_bytes = mac->icv_bytes,
		.alignment = 4,
	};
	return GW_OK;
}

enum gw_error gw_suite_find(uint8_t protocol, uint16_t encryption, uint16_t integrity,
			    uint16_t key_bits, struct gw_suite *suite)
{
	const struct cipher_row *cipher = find_cipher(encryption);
	const struct mac_row *mac = find_mac(integrity);

	if (protocol == GW_PROTOCOL_AH)
		return find_ah(encryption, mac, suite);
	if (protocol != GW_PROTOCOL_ESP || !cipher)
		return GW_E_UNSUPPORTED;
	/* Encryption without integrity is not offered at all (RFC 8221 §4). */
	if (cipher->icv_bytes ? integrity != 0 : !mac || mac->mac == GW_MAC_GMAC)
		return GW_E_UNSUPPORTED;
	if (!has_key_bits(cipher, key_bits))
		return GW_E_KEY;
	*suite = (struct gw_suite){
		.cipher = cipher->cipher,
		.mac = cipher->icv_bytes ? GW_MAC_NONE : mac->mac,
		.key_bytes = (uint8_t)(key_bits / 8),
		.mac_key_bytes = cipher->icv_bytes ? 0 : mac->key_bytes,
		.salt_bytes = cipher->salt_bytes,
		.iv_bytes = cipher->iv_bytes,
		.icv_bytes = cipher->icv_bytes ? cipher->icv_bytes : mac->icv_bytes,
		.alignment = cipher->alignment,
	};
	return GW_OK;
}
