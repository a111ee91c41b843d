/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Suites by ipsec-mb (Intel's multi-buffer library). GCM and GMAC by its direct calls, one packet
 * after another, which is quickest; all others by bursts of jobs, which fill the lanes of a vector
 * with packets.
 */
#include "crypto.h"
#include "gcm_keys.h"

#define ROUND_KEYS_BYTES (16 * 15)

/* Of all suites but GCM and GMAC, whose keys are a struct gcm_key_data. */
struct keys {
	alignas(64) uint8_t encipher[ROUND_KEYS_BYTES];
	alignas(16) uint8_t decipher[ROUND_KEYS_BYTES];
	alignas(16) uint8_t mac[ROUND_KEYS_BYTES]; /* of CMAC, and of XCBC: K1 */
	alignas(16) uint8_t mac_2[16];
	alignas(16) uint8_t mac_3[16];
	alignas(16) uint8_t inner[IMB_SHA_512_BLOCK_SIZE];
	alignas(16) uint8_t outer[IMB_SHA_512_BLOCK_SIZE];
};
static_assert(sizeof(struct keys) <= GW_MAX_KEY_BYTES &&
		      sizeof(struct gcm_key_data) <= GW_MAX_KEY_BYTES,
	      "keys fit behind an SA");
static_assert(alignof(struct gcm_key_data) <= GW_LINE, "keys begin a line");

static const char *name(void)
{
	__builtin_cpu_init();
	if (!__builtin_cpu_supports("aes") || !__builtin_cpu_supports("sse4.2") ||
	    !__builtin_cpu_supports("pclmul"))
		return "";
	return "ipsec-mb " IMB_VERSION_STR;
}

static bool has(const struct gw_suite *suite)
{
	return suite->cipher != GW_CIPHER_CCM || suite->key_bytes != 24;
}

static enum gw_error start(struct gw_worker *worker)
{
	IMB_MGR *manager = alloc_mb_mgr(0);

	if (!manager)
		return GW_E_MEMORY;
	worker->multi_buffer = manager;
	init_mb_mgr_auto(manager, NULL);
	return imb_get_errno(manager) == 0 ? GW_OK : GW_E_CRYPTO;
}

static void stop(struct gw_worker *worker)
{
	if (worker->multi_buffer)
		free_mb_mgr(worker->multi_buffer);
	worker->multi_buffer = NULL;
}

/* --- GCM (RFC 4106) and GMAC (RFC 4543), directly */

/* Keys are fetched so many packets ahead: 2 to 16 were measured, and this is among the best. */
#define AHEAD 4

static inline void fetch_keys(const struct gw_op *op)
{
	const char *keys = op->sa->keys;

	for (size_t line = 0; line < GW_ROUND_KEY_LINES; line++)
		__builtin_prefetch(keys + line * GW_LINE);
	for (size_t line = gw_first_power_line(op->text_bytes); line < GW_GCM_KEY_LINES; line++)
		__builtin_prefetch(keys + line * GW_LINE);
}

static inline void fetch_ahead(const struct gw_op *ops, size_t at, size_t count)
{
	if (at < count && ops[at].sa != ops[at - 1].sa)
		fetch_keys(&ops[at]);
}

/*
 * Bring in the text of the next packet while this one is in hand. To read, though it will be written:
 * lines asked for to be written come from the other CPU unsaved, and it waits for them the longer when
 * it writes the next packet there.
 */
static inline void fetch_text(const struct gw_worker *worker, const struct gw_op *ops, size_t at,
			      size_t count)
{
	if (!worker->cold_packets || at >= count)
		return;
	for (uint32_t byte = 0; byte < ops[at].text_bytes; byte += GW_LINE)
		__builtin_prefetch(ops[at].text + byte, 0, 2);
}

static void seal_gcm(struct gw_worker *worker, struct gw_op *ops, size_t count)
{
	struct gcm_context_data context;

	for (size_t i = 1; i < AHEAD; i++)
		fetch_ahead(ops, i, count);
	for (size_t i = 0; i < count; i++) {
		struct gw_op *op = &ops[i];
		const struct gcm_key_data *keys = op->sa->keys;
		uint8_t nonce[16], buffer[16];
		uint32_t aad_bytes;
		const uint8_t *aad = gw_make_aad(buffer, op, &aad_bytes);

		fetch_ahead(ops, i + AHEAD, count);
		fetch_text(worker, ops, i + 1, count);
		gw_make_nonce(nonce, op);
		((aes_gcm_enc_dec_t)op->sa->direct)(keys, &context, op->text, op->text,
						    op->text_bytes, nonce, aad, aad_bytes, op->icv,
						    op->sa->suite.icv_bytes);
		op->failed = 0;
	}
}

static void open_gcm(struct gw_worker *worker, struct gw_op *ops, size_t count)
{
	struct gcm_context_data context;

	for (size_t i = 1; i < AHEAD; i++)
		fetch_ahead(ops, i, count);
	for (size_t i = 0; i < count; i++) {
		struct gw_op *op = &ops[i];
		const struct gcm_key_data *keys = op->sa->keys;
		uint8_t nonce[16], buffer[16], tag[16];
		uint32_t aad_bytes;
		const uint8_t *aad = gw_make_aad(buffer, op, &aad_bytes);

		fetch_ahead(ops, i + AHEAD, count);
		fetch_text(worker, ops, i + 1, count);
		gw_make_nonce(nonce, op);
		((aes_gcm_enc_dec_t)op->sa->direct)(keys, &context, op->text, op->text,
						    op->text_bytes, nonce, aad, aad_bytes, tag,
						    op->sa->suite.icv_bytes);
		op->failed = gw_differs(tag, op->icv, op->sa->suite.icv_bytes) != 0;
	}
}

static void gmac(struct gw_op *op, uint8_t *cover, uint32_t bytes)
{
	const struct gcm_key_data *keys = op->sa->keys;
	struct gcm_context_data context;
	uint8_t nonce[16], tag[16];

	gw_make_nonce(nonce, op);
	((aes_gcm_enc_dec_t)op->sa->direct)(keys, &context, cover, cover, 0, nonce, cover, bytes,
					    tag, op->sa->suite.icv_bytes);
	if (op->sa->inbound) {
		op->failed = gw_differs(tag, op->icv, op->sa->suite.icv_bytes) != 0;
		return;
	}
	op->failed = 0;
	memcpy(op->icv, tag, op->sa->suite.icv_bytes);
}

static void run_esp_gmac(struct gw_worker *worker, struct gw_op *ops, size_t count)
{
	(void)worker;
	for (size_t i = 0; i < count; i++) {
		struct gw_gmac_cover cover = gw_gmac_widen(&ops[i]);

		gmac(&ops[i], cover.start, cover.bytes);
		gw_gmac_narrow(&ops[i], &cover);
	}
}

static void run_ah_gmac(struct gw_worker *worker, struct gw_op *ops, size_t count)
{
	(void)worker;
	for (size_t i = 0; i < count; i++) {
		struct gw_op *op = &ops[i];

		if (op->sa->esn)
			gw_store32(op->auth + op->auth_bytes, (uint32_t)(op->sequence >> 32));
		gmac(op, op->auth, op->auth_bytes + (op->sa->esn ? 4 : 0));
	}
}

/* --- everything else, as jobs */

/* What a job points to while it is under way. */
struct job_buffers {
	alignas(16) uint8_t nonce[16];
	uint8_t aad[16];
	uint8_t tag[64];
	uint8_t icv[GW_MAX_ICV];
};

static const IMB_CIPHER_MODE cipher_modes[] = {
	[GW_CIPHER_NULL] = IMB_CIPHER_NULL,
	[GW_CIPHER_CBC] = IMB_CIPHER_CBC,
	[GW_CIPHER_CTR] = IMB_CIPHER_CNTR,
	[GW_CIPHER_CCM] = IMB_CIPHER_CCM,
	[GW_CIPHER_CHACHA20_POLY1305] = IMB_CIPHER_CHACHA20_POLY1305,
};

static const IMB_HASH_ALG hashes[] = {
	[GW_MAC_HMAC_SHA1] = IMB_AUTH_HMAC_SHA_1,
	[GW_MAC_HMAC_SHA256] = IMB_AUTH_HMAC_SHA_256,
	[GW_MAC_HMAC_SHA384] = IMB_AUTH_HMAC_SHA_384,
	[GW_MAC_HMAC_SHA512] = IMB_AUTH_HMAC_SHA_512,
	[GW_MAC_XCBC] = IMB_AUTH_AES_XCBC,
	[GW_MAC_CMAC] = IMB_AUTH_AES_CMAC,
};

static void fill_cipher(IMB_JOB *job, const struct gw_op *op, struct job_buffers *buffers)
{
	const struct keys *keys = op->sa->keys;

	job->cipher_mode = cipher_modes[op->sa->suite.cipher];
	job->cipher_direction = op->sa->inbound ? IMB_DIR_DECRYPT : IMB_DIR_ENCRYPT;
	job->chain_order = op->sa->inbound ? IMB_ORDER_HASH_CIPHER : IMB_ORDER_CIPHER_HASH;
	job->enc_keys = keys->encipher;
	job->dec_keys = keys->decipher;
	job->key_len_in_bytes = op->sa->suite.key_bytes;
	job->src = op->auth;
	job->dst = op->text;
	job->cipher_start_src_offset_in_bytes = (uint64_t)(op->text - op->auth);
	job->msg_len_to_cipher_in_bytes = op->text_bytes;
	job->iv = op->iv;
	job->iv_len_in_bytes = op->sa->suite.iv_bytes;
	if (op->sa->suite.cipher == GW_CIPHER_CTR) {
		gw_make_ctr_block(buffers->nonce, op);
		job->iv = buffers->nonce;
		job->iv_len_in_bytes = 16;
	}
	job->auth_tag_output = buffers->tag;
	job->auth_tag_output_len_in_bytes = op->sa->suite.icv_bytes;
	job->hash_start_src_offset_in_bytes = 0;
}

static void fill_mac(IMB_JOB *job, const struct gw_op *op, struct job_buffers *buffers)
{
	const struct keys *keys = op->sa->keys;
	uint32_t bytes = op->auth_bytes;

	if (op->sa->inbound)
		memcpy(buffers->icv, op->icv, op->sa->suite.icv_bytes);
	if (op->sa->esn) {
		gw_store32(op->auth + bytes, (uint32_t)(op->sequence >> 32));
		bytes += 4;
	}
	job->msg_len_to_hash_in_bytes = bytes;
	job->hash_alg = hashes[op->sa->suite.mac];
	if (op->sa->suite.mac == GW_MAC_XCBC) {
		job->u.XCBC._k1_expanded = (const uint32_t *)(const void *)keys->mac;
		job->u.XCBC._k2 = keys->mac_2;
		job->u.XCBC._k3 = keys->mac_3;
	} else if (op->sa->suite.mac == GW_MAC_CMAC) {
		job->u.CMAC._key_expanded = keys->mac;
		job->u.CMAC._skey1 = keys->mac_2;
		job->u.CMAC._skey2 = keys->mac_3;
	} else {
		job->u.HMAC._hashed_auth_key_xor_ipad = keys->inner;
		job->u.HMAC._hashed_auth_key_xor_opad = keys->outer;
	}
}

static void fill_chacha(IMB_JOB *job, const struct gw_op *op, struct job_buffers *buffers)
{
	uint32_t aad_bytes;

	memcpy(buffers->icv, op->icv, op->sa->suite.icv_bytes);
	gw_make_nonce(buffers->nonce, op);
	job->iv = buffers->nonce;
	job->iv_len_in_bytes = 12;
	job->hash_alg = IMB_AUTH_CHACHA20_POLY1305;
	job->u.CHACHA20_POLY1305.aad = gw_make_aad(buffers->aad, op, &aad_bytes);
	job->u.CHACHA20_POLY1305.aad_len_in_bytes = aad_bytes;
	job->hash_start_src_offset_in_bytes = job->cipher_start_src_offset_in_bytes;
	job->msg_len_to_hash_in_bytes = op->text_bytes;
}

static void fill_ccm(IMB_JOB *job, const struct gw_op *op, struct job_buffers *buffers)
{
	uint32_t aad_bytes;

	memcpy(buffers->icv, op->icv, op->sa->suite.icv_bytes);
	memcpy(buffers->nonce, op->sa->salt, 3);
	memcpy(buffers->nonce + 3, op->iv, 8);
	job->iv = buffers->nonce;
	job->iv_len_in_bytes = 11;
	job->hash_alg = IMB_AUTH_AES_CCM;
	/* The plaintext is what is authenticated (RFC 3610 §2.2). */
	job->chain_order = op->sa->inbound ? IMB_ORDER_CIPHER_HASH : IMB_ORDER_HASH_CIPHER;
	job->dec_keys = job->enc_keys;
	job->u.CCM.aad = gw_make_aad(buffers->aad, op, &aad_bytes);
	job->u.CCM.aad_len_in_bytes = aad_bytes;
	job->hash_start_src_offset_in_bytes = job->cipher_start_src_offset_in_bytes;
	job->msg_len_to_hash_in_bytes = op->text_bytes;
}

static void fill_job(IMB_JOB *job, struct gw_op *op, struct job_buffers *buffers)
{
	job->user_data = op;
	fill_cipher(job, op, buffers);
	if (op->sa->suite.cipher == GW_CIPHER_CHACHA20_POLY1305)
		fill_chacha(job, op, buffers);
	else if (op->sa->suite.cipher == GW_CIPHER_CCM)
		fill_ccm(job, op, buffers);
	else
		fill_mac(job, op, buffers);
}

static void take_done(IMB_JOB *const *jobs, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		struct gw_op *op = jobs[i]->user_data;

		op->failed = jobs[i]->status != IMB_STATUS_COMPLETED;
	}
}

/* Compare or store the tags, now that no job reads the bytes around them any more. */
static void settle(struct gw_op *op, const struct job_buffers *buffers)
{
	if (op->failed)
		return;
	if (op->sa->inbound)
		op->failed = gw_differs(buffers->tag, buffers->icv, op->sa->suite.icv_bytes) != 0;
	else
		memcpy(op->icv, buffers->tag, op->sa->suite.icv_bytes);
}

static void run_jobs(struct gw_worker *worker, struct gw_op *ops, size_t count)
{
	IMB_MGR *manager = worker->multi_buffer;
	struct job_buffers buffers[GW_CHUNK];
	IMB_JOB *jobs[GW_CHUNK];
	uint32_t got;

	for (size_t i = 0; i < count; i++)
		ops[i].failed = 1;
	/* The queue is empty here: nothing stays in it between calls. */
	got = IMB_GET_NEXT_BURST(manager, (uint32_t)count, jobs);
	for (uint32_t i = 0; i < got; i++)
		fill_job(jobs[i], &ops[i], &buffers[i]);
	take_done(jobs, IMB_SUBMIT_BURST(manager, got, jobs));
	while ((got = IMB_FLUSH_BURST(manager, GW_CHUNK, jobs)) != 0)
		take_done(jobs, got);
	for (size_t i = 0; i < count; i++)
		settle(&ops[i], &buffers[i]);
	gw_wipe(buffers, sizeof(buffers[0]) * count);
}

/* --- keys, once per SA */

static void expand_aes(IMB_MGR *manager, const uint8_t *key, size_t bytes, uint8_t *encipher,
		       uint8_t *decipher)
{
	if (bytes == 16)
		IMB_AES_KEYEXP_128(manager, key, encipher, decipher);
	else if (bytes == 24)
		IMB_AES_KEYEXP_192(manager, key, encipher, decipher);
	else
		IMB_AES_KEYEXP_256(manager, key, encipher, decipher);
}

static void init_gcm(IMB_MGR *manager, struct gw_sa *sa, const uint8_t *key, size_t key_bytes)
{
	if (key_bytes == 16) {
		IMB_AES128_GCM_PRE(manager, key, sa->keys);
		sa->direct = (void *)(sa->inbound ? manager->gcm128_dec : manager->gcm128_enc);
	} else if (key_bytes == 24) {
		IMB_AES192_GCM_PRE(manager, key, sa->keys);
		sa->direct = (void *)(sa->inbound ? manager->gcm192_dec : manager->gcm192_enc);
	} else {
		IMB_AES256_GCM_PRE(manager, key, sa->keys);
		sa->direct = (void *)(sa->inbound ? manager->gcm256_dec : manager->gcm256_enc);
	}
}

static void init_cipher(IMB_MGR *manager, struct gw_sa *sa, struct keys *keys, const uint8_t *key)
{
	switch (sa->suite.cipher) {
	case GW_CIPHER_NULL:
		break;
	case GW_CIPHER_CHACHA20_POLY1305:
		memcpy(keys->encipher, key, sa->suite.key_bytes);
		memcpy(keys->decipher, key, sa->suite.key_bytes);
		break;
	default:
		expand_aes(manager, key, sa->suite.key_bytes, keys->encipher, keys->decipher);
	}
}

static void hash_block(IMB_MGR *manager, uint8_t mac, const uint8_t *block, uint8_t *to)
{
	switch (mac) {
	case GW_MAC_HMAC_SHA1:
		IMB_SHA1_ONE_BLOCK(manager, block, to);
		break;
	case GW_MAC_HMAC_SHA256:
		IMB_SHA256_ONE_BLOCK(manager, block, to);
		break;
	case GW_MAC_HMAC_SHA384:
		IMB_SHA384_ONE_BLOCK(manager, block, to);
		break;
	default:
		IMB_SHA512_ONE_BLOCK(manager, block, to);
	}
}

/*
 * The hash state behind the key block: all keys of RFC 2404 and RFC 4868 are shorter than one (RFC
 * 2104).
 */
static void init_hmac(IMB_MGR *manager, const struct gw_suite *suite, struct keys *keys,
		      const uint8_t *key)
{
	uint8_t block[IMB_SHA_512_BLOCK_SIZE];

	memset(block, 0x36, sizeof(block));
	for (size_t i = 0; i < suite->mac_key_bytes; i++)
		block[i] ^= key[i];
	hash_block(manager, suite->mac, block, keys->inner);
	for (size_t i = 0; i < sizeof(block); i++)
		block[i] ^= 0x36 ^ 0x5c;
	hash_block(manager, suite->mac, block, keys->outer);
	gw_wipe(block, sizeof(block));
}

static void init_mac(IMB_MGR *manager, struct gw_sa *sa, struct keys *keys, const uint8_t *key)
{
	uint8_t unused[ROUND_KEYS_BYTES];

	switch (sa->suite.mac) {
	case GW_MAC_NONE:
		return;
	case GW_MAC_XCBC:
		IMB_AES_XCBC_KEYEXP(manager, key, keys->mac, keys->mac_2, keys->mac_3);
		return;
	case GW_MAC_CMAC:
		IMB_AES_KEYEXP_128(manager, key, keys->mac, unused);
		IMB_AES_CMAC_SUBKEY_GEN_128(manager, keys->mac, keys->mac_2, keys->mac_3);
		gw_wipe(unused, sizeof(unused));
		return;
	default:
		init_hmac(manager, &sa->suite, keys, key);
	}
}

static gw_crypto_run find_run(const struct gw_sa *sa)
{
	if (sa->suite.mac == GW_MAC_GMAC)
		return run_ah_gmac;
	if (sa->suite.cipher == GW_CIPHER_GMAC)
		return run_esp_gmac;
	if (sa->suite.cipher == GW_CIPHER_GCM)
		return sa->inbound ? open_gcm : seal_gcm;
	return run_jobs;
}

static bool has_gcm_keys(const struct gw_suite *suite)
{
	return suite->cipher == GW_CIPHER_GCM || suite->cipher == GW_CIPHER_GMAC ||
	       suite->mac == GW_MAC_GMAC;
}

static size_t key_bytes(const struct gw_suite *suite)
{
	return has_gcm_keys(suite) ? sizeof(struct gcm_key_data) : sizeof(struct keys);
}

static enum gw_error init(struct gw_worker *worker, struct gw_sa *sa,
			  const struct gw_sa_params *params)
{
	IMB_MGR *manager = worker->multi_buffer;
	bool is_ah = sa->suite.mac == GW_MAC_GMAC;

	sa->run = find_run(sa);
	if (has_gcm_keys(&sa->suite)) {
		init_gcm(manager, sa, is_ah ? params->integrity_key : params->encryption_key,
			 is_ah ? sa->suite.mac_key_bytes : sa->suite.key_bytes);
		return GW_OK;
	}
	init_cipher(manager, sa, sa->keys, params->encryption_key);
	init_mac(manager, sa, sa->keys, params->integrity_key);
	return GW_OK;
}

const struct gw_crypto_library gw_ipsecmb = {
	.id = GW_CRYPTO_IPSECMB,
	.name = name,
	.has = has,
	.start = start,
	.stop = stop,
	.key_bytes = key_bytes,
	.init = init,
};
