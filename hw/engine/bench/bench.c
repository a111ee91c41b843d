/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time the ESP core library in memory: bench ROUNDS PACKETS BURST SPEC...
 *
 * A SPEC is WHAT:ENCR:INTEG:KEYBITS:CRYPTO:BYTES:SAS, with
 *   WHAT   direct (ipsec-mb's GCM call and nothing else), crypto (the library's crypto table for
 * one SA, without ESP), seal or open (tunnel mode, IPv4 in IPv4, through the SA tables, window
 * 1024) BYTES  of the inner packet; of the text for direct and crypto SAS    that packets go
 * through by turns
 *
 * Each round measures every SPEC once, over PACKETS packets in bursts of BURST, so that what
 * disturbs the machine disturbs all alike. What is timed is the call for a burst; refilling buffers
 * is not. A round's figure is that of its median burst: a burst in which the kernel took the CPU
 * away counts as one slow burst, whatever its length. Output, one JSON object: the frequency of the
 * time stamp counter, and of each SPEC the cycles of that counter per packet, by round.
 * gateway/bench/engine makes the specs and reads the results.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "crypto.h"
#include "gw_engine.h"
#include "ip.h"

#ifdef GW_HAVE_IPSECMB
#include <intel-ipsec-mb.h>
#endif

#define BUFFERS      256u
#define BUFFER_BYTES 2048u
#define FRONT        128u
#define MAX_SPECS    256
#define MAX_ROUNDS   1000
#define MAX_BURSTS   (1u << 20)
#define FIRST_SPI    0x10000u
#define INBOUND_BITS 15u

struct spec {
	char what[8];
	unsigned int encryption, integrity, key_bits, crypto, bytes, sas;
	struct gw_worker *worker;
	uint32_t *refs;
	double cycles[MAX_ROUNDS];
};

static uint8_t *buffers;
static struct gw_packet packets[BUFFERS];
static unsigned long rounds, packets_wanted, burst;

static uint64_t now_cycles(void)
{
#if defined(__x86_64__)
	uint32_t low, high;

	__asm__ __volatile__("rdtscp" : "=a"(low), "=d"(high) : : "ecx", "memory");
	return (uint64_t)high << 32 | low;
#else
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_RAW, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
#endif
}

static double counter_hz(void)
{
	struct timespec start, now;
	uint64_t first = now_cycles();
	double elapsed;

	clock_gettime(CLOCK_MONOTONIC_RAW, &start);
	do {
		clock_gettime(CLOCK_MONOTONIC_RAW, &now);
		elapsed = (double)(now.tv_sec - start.tv_sec) +
			  (double)(now.tv_nsec - start.tv_nsec) / 1e9;
	} while (elapsed < 0.1);
	return (double)(now_cycles() - first) / elapsed;
}

static void fail(const char *what, long code)
{
	fprintf(stderr, "bench: %s (%ld)\n", what, code);
	exit(1);
}

/* --- SAs */

static void any_selector(struct gw_selector *selector)
{
	memset(selector, 0, sizeof(*selector));
	memset(selector->end, 0xff, 4);
	selector->end_port = UINT16_MAX;
	selector->family = 4;
}

static void fill_params(const struct spec *spec, struct gw_sa_params *params, unsigned int index)
{
	struct gw_suite suite;
	enum gw_error error =
		gw_suite_find(GW_PROTOCOL_ESP, (uint16_t)spec->encryption,
			      (uint16_t)spec->integrity, (uint16_t)spec->key_bits, &suite);

	if (error != GW_OK)
		fail("no such suite", error);
	memset(params, 0, sizeof(*params));
	params->spi = FIRST_SPI + index;
	params->index = index;
	params->protocol = GW_PROTOCOL_ESP;
	params->family = 4;
	params->encryption = (uint16_t)spec->encryption;
	params->integrity = (uint16_t)spec->integrity;
	params->key_bits = (uint16_t)spec->key_bits;
	params->crypto = (uint8_t)spec->crypto;
	params->encryption_key_bytes = (uint16_t)(suite.key_bytes + suite.salt_bytes);
	params->integrity_key_bytes = suite.mac_key_bytes;
	params->replay_window = 1024;
	params->copy_dscp = 1;
	for (size_t i = 0; i < sizeof(params->encryption_key); i++)
		params->encryption_key[i] = (uint8_t)(i + index);
	memcpy(params->source, (uint8_t[]){192, 0, 2, 1}, 4);
	memcpy(params->destination, (uint8_t[]){192, 0, 2, 2}, 4);
	params->soft_packets = params->hard_packets = GW_NEVER;
	params->soft_bytes = params->hard_bytes = GW_NEVER;
	params->next_sequence = 1;
	params->sequence_limit = GW_NEVER;
	params->local_selectors = params->remote_selectors = 1;
	any_selector(&params->selectors[0]);
	any_selector(&params->selectors[1]);
}

static void set_up(struct spec *spec)
{
	struct gw_worker_config config = {
		.inbound_bits = INBOUND_BITS,
		.outbound_sas = spec->sas,
		.seed = {1},
	};
	enum gw_error error;

	spec->worker = gw_worker_new(&config, &error);
	spec->refs = calloc(spec->sas, sizeof(*spec->refs));
	if (!spec->worker || !spec->refs)
		fail("no worker", error);
	for (unsigned int i = 0; i < spec->sas; i++) {
		struct gw_sa_params params;
		uint32_t ref;

		fill_params(spec, &params, i);
		params.direction = GW_OUTBOUND;
		error = gw_sa_add(spec->worker, &params, NULL, &spec->refs[i]);
		params.direction = GW_INBOUND;
		if (error == GW_OK)
			error = gw_sa_add(spec->worker, &params, NULL, &ref);
		if (error != GW_OK)
			fail("SA refused", error);
	}
}

/* --- what is measured: each returns cycles for one burst that starts at packet number `from` */

static void refill(const struct spec *spec, unsigned long from)
{
	static const uint8_t inner[] = {0x45, 0, 0,  0, 0, 0, 0x40, 0, 64, 253,
					0,    0, 10, 1, 0, 1, 10,   2, 0,  1};

	for (unsigned long i = 0; i < burst; i++) {
		unsigned long at = (from + i) % BUFFERS;

		packets[i] = (struct gw_packet){
			.data = buffers + at * BUFFER_BYTES + FRONT,
			.length = spec->bytes,
			.ref = spec->refs[(from + i) % spec->sas],
			.headroom = FRONT,
			.tailroom = (uint16_t)(BUFFER_BYTES - FRONT - spec->bytes),
		};
		memcpy(packets[i].data, inner, sizeof(inner));
		gw_store16(packets[i].data + 2, (uint16_t)spec->bytes);
	}
}

static uint64_t seal(const struct spec *spec, unsigned long from)
{
	uint64_t start, end;
	size_t carried;

	refill(spec, from);
	start = now_cycles();
	carried = gw_seal_burst(spec->worker, packets, burst, start);
	end = now_cycles();
	if (carried != burst)
		fail("not sealed", packets[0].verdict);
	return end - start;
}

static uint64_t open_sealed(const struct spec *spec, unsigned long from)
{
	uint64_t start, end;
	size_t carried;

	seal(spec, from);
	start = now_cycles();
	carried = gw_open_burst(spec->worker, packets, burst, start);
	end = now_cycles();
	if (carried != burst)
		fail("not opened", packets[0].verdict);
	return end - start;
}

/* The operations of a burst without ESP around them: text in place, IV before it, ICV behind. */
static uint64_t crypto(const struct spec *spec, unsigned long from)
{
	struct gw_sa *sa = spec->worker->outbound[0].sa;
	uint64_t start, end;

	for (unsigned long i = 0; i < burst; i++) {
		uint8_t *text = buffers + (from + i) % BUFFERS * BUFFER_BYTES + FRONT;
		uint32_t bytes = spec->bytes & ~(uint32_t)sa->align_mask;

		spec->worker->ops[i] = (struct gw_op){
			.sa = sa,
			.auth = text - sa->iv_bytes - GW_ESP_BYTES,
			.text = text,
			.iv = text - sa->iv_bytes,
			.icv = text + bytes,
			.sequence = from + i,
			.text_bytes = bytes,
			.auth_bytes = GW_ESP_BYTES + sa->iv_bytes + bytes,
		};
	}
	start = now_cycles();
	sa->run(spec->worker, spec->worker->ops, burst);
	end = now_cycles();
	return end - start;
}

static uint64_t direct(const struct spec *spec, unsigned long from)
{
#ifdef GW_HAVE_IPSECMB
	struct gcm_context_data context;
	const uint8_t salt[4] = {1}, aad[16] = {2};
	uint8_t nonce[16];
	uint64_t start, end;

	if (!spec->worker->outbound[0].sa->direct)
		fail("no direct call", spec->crypto);
	start = now_cycles();
	for (unsigned long i = 0; i < burst; i++) {
		uint8_t *text = buffers + (from + i) % BUFFERS * BUFFER_BYTES + FRONT;

		const struct gw_sa *sa = spec->worker->outbound[(from + i) % spec->sas].sa;

		gw_join_12(nonce, salt, from + i);
		((aes_gcm_enc_dec_t)sa->direct)(sa->keys, &context, text, text, spec->bytes, nonce,
						aad, 8, text + spec->bytes, 16);
	}
	end = now_cycles();
	return end - start;
#else
	(void)from;
	fail("built without ipsec-mb", (long)spec->bytes);
	return 0;
#endif
}

static uint64_t (*find_measure(const char *what))(const struct spec *, unsigned long)
{
	static const struct {
		const char *what;
		uint64_t (*run)(const struct spec *spec, unsigned long from);
	} measures[] = {
		{"direct", direct},
		{"crypto", crypto},
		{"seal", seal},
		{"open", open_sealed},
	};

	for (size_t i = 0; i < sizeof(measures) / sizeof(measures[0]); i++)
		if (strcmp(what, measures[i].what) == 0)
			return measures[i].run;
	fail("no such measure", 0);
	return NULL;
}

static int compare(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

static double measure(const struct spec *spec, uint64_t (*run)(const struct spec *, unsigned long))
{
	static uint64_t cycles[MAX_BURSTS];
	unsigned long turn = spec->sas > BUFFERS ? spec->sas : BUFFERS;
	unsigned long from = 0, bursts = 0;

	/* One turn through SAs and buffers is not counted. */
	for (; from < turn; from += burst)
		run(spec, from);
	for (; bursts * burst < packets_wanted; from += burst)
		cycles[bursts++] = run(spec, from);
	qsort(cycles, bursts, sizeof(cycles[0]), compare);
	return (double)cycles[bursts / 2] / (double)burst;
}

static void print(const struct spec *specs, int count, char **names)
{
	printf("{\"counter_hz\": %.0f, \"ipsec_mb\": \"%s\", \"openssl\": \"%s\", \"cycles\": {",
	       counter_hz(), gw_crypto_name(GW_CRYPTO_IPSECMB), gw_crypto_name(GW_CRYPTO_OPENSSL));
	for (int i = 0; i < count; i++) {
		printf("%s\"%s\": [", i ? ", " : "", names[i]);
		for (unsigned long round = 0; round < rounds; round++)
			printf("%s%.1f", round ? ", " : "", specs[i].cycles[round]);
		printf("]");
	}
	printf("}}\n");
}

int main(int argc, char **argv)
{
	static struct spec specs[MAX_SPECS];
	int count = argc - 4;

	if (count < 1 || count > MAX_SPECS)
		fail("usage: bench ROUNDS PACKETS BURST SPEC...", argc);
	rounds = strtoul(argv[1], NULL, 10);
	packets_wanted = strtoul(argv[2], NULL, 10);
	burst = strtoul(argv[3], NULL, 10);
	if (rounds < 1 || rounds > MAX_ROUNDS || burst < 1 || burst > GW_CHUNK ||
	    packets_wanted < 1 || packets_wanted / burst >= MAX_BURSTS)
		fail("rounds, packets or burst out of range", GW_CHUNK);
	buffers = aligned_alloc(4096, (size_t)BUFFERS * BUFFER_BYTES);
	if (!buffers)
		fail("no memory", 0);
	memset(buffers, 0x5a, (size_t)BUFFERS * BUFFER_BYTES);
	for (int i = 0; i < count; i++) {
		struct spec *spec = &specs[i];

		if (sscanf(argv[i + 4], "%7[a-z]:%u:%u:%u:%u:%u:%u", spec->what, &spec->encryption,
			   &spec->integrity, &spec->key_bits, &spec->crypto, &spec->bytes,
			   &spec->sas) != 7 ||
		    spec->bytes < GW_IPV4_BYTES ||
		    spec->bytes > BUFFER_BYTES - FRONT - GW_TAILROOM || spec->sas < 1 ||
		    spec->sas > 1u << INBOUND_BITS)
			fail("not a spec", i);
		set_up(spec);
	}
	for (unsigned long round = 0; round < rounds; round++)
		for (int i = 0; i < count; i++)
			specs[i].cycles[round] = measure(&specs[i], find_measure(specs[i].what));
	print(specs, count, argv + 4);
	for (int i = 0; i < count; i++) {
		gw_worker_free(specs[i].worker);
		free(specs[i].refs);
	}
	free(buffers);
	return 0;
}
