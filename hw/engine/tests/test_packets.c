/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every suite, mode, family and kind of sequence number there and back, in memory of exact size;
 * then the same packets cut short and changed. Whether the bytes are right is the business of
 * tests/engine; whether one too many is touched, of the sanitizers here.
 */
#include "samples.h"
#include "tap.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

struct suite_case {
	uint8_t protocol;
	uint16_t encryption, integrity, key_bits;
};

static const struct suite_case suites[] = {
	{50, 20, 0, 128},  {50, 20, 0, 256}, {50, 18, 0, 192}, {50, 21, 0, 256},  {50, 16, 0, 128},
	{50, 14, 0, 192},  {50, 28, 0, 256}, {50, 12, 2, 128}, {50, 12, 12, 256}, {50, 12, 14, 192},
	{50, 13, 13, 256}, {50, 13, 5, 128}, {50, 11, 12, 0},  {50, 11, 8, 0},    {51, 11, 2, 0},
	{51, 11, 12, 0},   {51, 11, 14, 0},  {51, 11, 5, 0},   {51, 11, 8, 0},    {51, 11, 11, 0},
};
static const size_t payloads[] = {0, 1, 2, 3, 15, 16, 63, 64, 511, 1400};

/* Seal one packet and return it in memory of its own. */
static struct sample seal(struct gw_worker *worker, uint32_t ref, const uint8_t *packet,
			  size_t length)
{
	struct sample sample = sample_of(packet, length, GW_HEADROOM, GW_TAILROOM);
	struct sample sealed;

	sample.packet.ref = ref;
	gw_seal_burst(worker, &sample.packet, 1, 1);
	/* Inbound needs no room, but for the ESN of AH. */
	sealed = sample_of(sample.packet.data, sample.packet.length, 0, 4);
	sealed.packet.verdict = sample.packet.verdict;
	free(sample.memory);
	return sealed;
}

static bool there_and_back(struct gw_worker *worker, uint32_t ref, const struct gw_sa_params *sa,
			   size_t payload)
{
	uint8_t packet[2048];
	size_t length = ip_packet(packet, sa, payload);
	struct sample sealed = seal(worker, ref, packet, length);
	bool good = sealed.packet.verdict == GW_DROP_NONE &&
		    gw_open_burst(worker, &sealed.packet, 1, 2) == 1 &&
		    sealed.packet.length == length &&
		    memcmp(sealed.packet.data, packet, length) == 0;

	free(sealed.memory);
	return good;
}

/* None of the shorter packets and none with a changed byte may come through. */
static bool refuses_spoilt(struct gw_worker *worker, uint32_t ref, const struct gw_sa_params *sa)
{
	uint8_t packet[256];
	struct sample sealed = seal(worker, ref, packet, ip_packet(packet, sa, 37));
	bool good = sealed.packet.verdict == GW_DROP_NONE;
	size_t header = sa->family == 4 ? GW_IPV4_BYTES : GW_IPV6_BYTES;

	for (uint32_t length = 0; length < sealed.packet.length; length++) {
		struct sample cut = sample_of(sealed.packet.data, length, 0, 4);

		good &= gw_open_burst(worker, &cut.packet, 1, 3) == 0;
		free(cut.memory);
	}
	for (uint32_t at = (uint32_t)header; at < sealed.packet.length; at++) {
		struct sample changed = sample_of(sealed.packet.data, sealed.packet.length, 0, 4);

		/* Nothing of the UDP header is authenticated. */
		if (sa->udp_source_port && at < header + GW_UDP_BYTES) {
			free(changed.memory);
			continue;
		}
		changed.packet.data[at] ^= 0x10;
		good &= gw_open_burst(worker, &changed.packet, 1, 3) == 0;
		free(changed.memory);
	}
	good &= gw_open_burst(worker, &sealed.packet, 1, 4) == 1;
	free(sealed.memory);
	return good;
}

static void check(const struct suite_case *suite, enum gw_crypto crypto, unsigned int shape)
{
	struct gw_sa_params out = sample_sa(GW_OUTBOUND, suite->protocol, suite->encryption,
					    suite->integrity, suite->key_bits);
	struct gw_worker *worker = sample_worker();
	struct gw_sa_params in;
	bool good = worker != NULL;
	uint32_t ref, back;
	char name[128];

	out.crypto = (uint8_t)crypto;
	out.mode = shape & 1;
	out.esn = shape >> 1 & 1;
	if (shape & 4)
		over_ipv6(&out);
	if (shape & 8)
		out.udp_source_port = out.udp_destination_port = 4500;
	in = out;
	in.direction = GW_INBOUND;
	good = good && gw_sa_add(worker, &out, NULL, &ref) == GW_OK &&
	       gw_sa_add(worker, &in, NULL, &back) == GW_OK;
	for (size_t i = 0; good && i < LENGTH(payloads); i++)
		good = there_and_back(worker, ref, &out, payloads[i]);
	good = good && refuses_spoilt(worker, ref, &out);
	snprintf(name, sizeof(name), "protocol %u, suite %u-%u-%u, %s, %s, IPv%u%s by %s",
		 suite->protocol, suite->encryption, suite->integrity, suite->key_bits,
		 shape & 1 ? "transport" : "tunnel", shape & 2 ? "ESN" : "no ESN", out.family,
		 shape & 8 ? " in UDP" : "", crypto == GW_CRYPTO_IPSECMB ? "ipsec-mb" : "OpenSSL");
	tap_check(good, name);
	gw_worker_free(worker);
}

int main(void)
{
	static const enum gw_crypto libraries[] = {GW_CRYPTO_IPSECMB, GW_CRYPTO_OPENSSL};

	for (size_t i = 0; i < LENGTH(suites); i++) {
		const struct suite_case *suite = &suites[i];

		for (size_t library = 0; library < LENGTH(libraries); library++) {
			enum gw_crypto crypto = libraries[library];

			if (gw_suite_crypto(suite->protocol, suite->encryption, suite->integrity,
					    suite->key_bits, crypto) != (int)crypto)
				continue;
			/* AH has no UDP encapsulation. */
			for (unsigned int shape = 0; shape < (suite->protocol == 51 ? 8u : 16u);
			     shape++)
				check(suite, crypto, shape);
		}
	}
	return tap_end();
}
