/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time the ESP core library in memory: bench ROUNDS PACKETS BURST SPEC...
 *
 * A SPEC is WHAT:ENCR:INTEG:KEYBITS:CRYPTO:BYTES:SAS:ORDER, with
 *
 *   WHAT   direct  ipsec-mb's GCM call and nothing else
 *          crypto  the library's crypto table for one SA, without ESP
 *          seal    tunnel mode, IPv4 in IPv4, through the SA tables
 *          open    the same, window 1024
 *          fetch   a load from each line of an SA that `direct` and `seal` read, and nothing else
 *   BYTES  of the inner packet; of the text for direct and crypto
 *   ORDER  of the SAs, packet by packet: turns (one after the other), random, or trains (eight
 *          packets of one, then eight of another at random)
 *
 * Each round measures every SPEC once, over PACKETS packets in bursts of BURST, so that what
 * disturbs the machine disturbs all alike. What is timed is the call for a burst; refilling buffers
 * is not. A round's figure is that of its median burst: a burst in which the kernel took the CPU
 * away counts as one slow burst, whatever its length. Output, one JSON object: the frequency of the
 * time stamp counter, and of each SPEC the cycles of that counter per packet, by round. Standard
 * error has a line at the beginning of each round: `round 2 of 15`.
 * gateway/bench/engine makes the specs and reads the results.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "crypto.h"
#include "gw_engine.h"
#include "ip.h"

#ifdef GW_HAVE_IPSECMB
#include "gcm_keys.h"
#endif

#define BUFFERS      256u
#define BUFFER_BYTES 2048u
#define FRONT        128u
#define MAX_SPECS    256
#define MAX_ROUNDS   1000
#define MAX_BURSTS   (1u << 20)
#define FIRST_SPI    0x10000u
#define INBOUND_BITS 15u
#define TRAIN        8u

struct spec {
	char what[8], order[8];
	unsigned int encryption, integrity, key_bits, crypto, bytes, sas;
	struct gw_worker *worker;
	uint64_t *sent;    /* to each SA that opens: its last sequence number */
	const void **keys; /* of the library, of each SA that seals */
	double cycles[MAX_ROUNDS];
};

static uint8_t *buffers;
static struct gw_packet packets[BUFFERS];
static uint32_t chosen[BUFFERS]; /* the SA of each packet of a burst */
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
		params->encryption_key[i] = (uint8_t)i;
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

static void add_sa(const struct spec *spec, unsigned int index, enum gw_direction direction)
{
	struct gw_sa_params params;
	enum gw_error error;
	uint32_t ref;

	fill_params(spec, &params, index);
	params.direction = (uint8_t)direction;
	error = gw_sa_add(spec->worker, &params, NULL, &ref);
	if (error != GW_OK)
		fail("SA refused", error);
}

/* All have the same key, each in memory of its own, so that one SA can seal for all that open. */
static void set_up(struct spec *spec)
{
	struct gw_worker_config config = {
		.inbound_bits = INBOUND_BITS,
		.outbound_sas = spec->sas,
		.seed = {1},
	};
	bool opens = strcmp(spec->what, "open") == 0;
	enum gw_error error;

	spec->worker = gw_worker_new(&config, &error);
	spec->sent = calloc(spec->sas, sizeof(*spec->sent));
	spec->keys = calloc(spec->sas, sizeof(*spec->keys));
	if (!spec->worker || !spec->sent || !spec->keys)
		fail("no worker", error);
	for (unsigned int i = 0; i < (opens ? 1 : spec->sas); i++)
		add_sa(spec, i, GW_OUTBOUND);
	for (unsigned int i = 0; i < (opens ? 1 : spec->sas); i++)
		spec->keys[i] = spec->worker->outbound[i].sa->keys;
	for (unsigned int i = 0; opens && i < spec->sas; i++)
		add_sa(spec, i, GW_INBOUND);
}

/* --- which SA a packet goes through */

static uint32_t turns(unsigned long packet, unsigned int sas)
{
	return (uint32_t)(packet % sas);
}

/* splitmix64: one number for each packet, the same in every run. */
static uint32_t at_random(unsigned long packet, unsigned int sas)
{
	uint64_t bits = packet * 0x9e3779b97f4a7c15u;

	bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9u;
	bits = (bits ^ bits >> 27) * 0x94d049bb133111ebu;
	return (uint32_t)(((bits >> 32) * sas) >> 32);
}

static uint32_t trains(unsigned long packet, unsigned int sas)
{
	return at_random(packet / TRAIN, sas);
}

static uint32_t (*find_order(const char *name))(unsigned long, unsigned int)
{
	static const struct {
		const char *name;
		uint32_t (*choose)(unsigned long packet, unsigned int sas);
	} orders[] = {{"turns", turns}, {"random", at_random}, {"trains", trains}};

	for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++)
		if (strcmp(name, orders[i].name) == 0)
			return orders[i].choose;
	fail("no such order", 0);
	return NULL;
}

static void choose(const struct spec *spec, unsigned long from)
{
	uint32_t (*order)(unsigned long, unsigned int) = find_order(spec->order);

	for (unsigned long i = 0; i < burst; i++)
		chosen[i] = order(from + i, spec->sas);
}

/* --- what is measured: each returns cycles for one burst that starts at packet number `from` */

static void refill(const struct spec *spec, unsigned long from)
{
	static const uint8_t inner[] = {0x45, 0, 0,  0, 0, 0, 0x40, 0, 64, 253,
					0,    0, 10, 1, 0, 1, 10,   2, 0,  1};

	choose(spec, from);
	for (unsigned long i = 0; i < burst; i++) {
		unsigned long at = (from + i) % BUFFERS;

		packets[i] = (struct gw_packet){
			.data = buffers + at * BUFFER_BYTES + FRONT,
			.length = spec->bytes,
			.ref = chosen[i],
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

/* One SA seals for all, with SPI and sequence number of each. */
static void seal_for_all(const struct spec *spec, unsigned long from)
{
	struct gw_hot *hot = &spec->worker->outbound[0];

	refill(spec, from);
	for (unsigned long i = 0; i < burst; i++) {
		packets[i].ref = 0;
		gw_store32(hot->sa->out.template + GW_TEMPLATE_BYTES - GW_ESP_BYTES,
			   FIRST_SPI + chosen[i]);
		hot->sequence = spec->sent[chosen[i]]++;
		if (gw_seal_burst(spec->worker, &packets[i], 1, 1) != 1)
			fail("not sealed", packets[i].verdict);
	}
}

static uint64_t open_sealed(const struct spec *spec, unsigned long from)
{
	uint64_t start, end;
	size_t carried;

	seal_for_all(spec, from);
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
		uint32_t bytes = gw_align_down(sa, spec->bytes);

		spec->worker->ops[i] = (struct gw_op){
			.sa = sa,
			.auth = text - sa->suite.iv_bytes - GW_ESP_BYTES,
			.text = text,
			.iv = text - sa->suite.iv_bytes,
			.icv = text + bytes,
			.sequence = from + i,
			.text_bytes = bytes,
			.auth_bytes = GW_ESP_BYTES + sa->suite.iv_bytes + bytes,
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
	aes_gcm_enc_dec_t call = (aes_gcm_enc_dec_t)spec->worker->outbound[0].sa->direct;
	uint8_t nonce[16];
	uint64_t start, end;

	if (!call)
		fail("no direct call", spec->crypto);
	choose(spec, from);
	start = now_cycles();
	for (unsigned long i = 0; i < burst; i++) {
		uint8_t *text = buffers + (from + i) % BUFFERS * BUFFER_BYTES + FRONT;

		gw_join_12(nonce, salt, from + i);
		call(spec->keys[chosen[i]], &context, text, text, spec->bytes, nonce, aad, 8,
		     text + spec->bytes, 16);
	}
	end = now_cycles();
	return end - start;
#else
	(void)from;
	fail("built without ipsec-mb", (long)spec->bytes);
	return 0;
#endif
}

/* What memory alone allows: loads that wait for none before them. */
static uint64_t fetch(const struct spec *spec, unsigned long from)
{
#ifdef GW_HAVE_IPSECMB
	size_t power = gw_first_power_line(spec->bytes);
	uint64_t start, end, sum = 0;

	choose(spec, from);
	start = now_cycles();
	for (unsigned long i = 0; i < burst; i++) {
		const struct gw_hot *hot = &spec->worker->outbound[chosen[i]];
		const volatile uint8_t *sa = (const uint8_t *)hot->sa;
		const volatile uint8_t *keys = sa + sizeof(struct gw_sa);

		sum += hot->sequence + sa[0] + sa[GW_LINE];
		for (size_t line = 0; line < GW_ROUND_KEY_LINES; line++)
			sum += keys[line * GW_LINE];
		for (size_t line = power; line < GW_GCM_KEY_LINES; line++)
			sum += keys[line * GW_LINE];
	}
	end = now_cycles();
	__asm__ __volatile__("" : : "r"(sum));
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
		{"direct", direct},    {"crypto", crypto}, {"seal", seal},
		{"open", open_sealed}, {"fetch", fetch},
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

		if (sscanf(argv[i + 4], "%7[a-z]:%u:%u:%u:%u:%u:%u:%7[a-z]", spec->what,
			   &spec->encryption, &spec->integrity, &spec->key_bits, &spec->crypto,
			   &spec->bytes, &spec->sas, spec->order) != 8 ||
		    spec->bytes < GW_IPV4_BYTES ||
		    spec->bytes > BUFFER_BYTES - FRONT - GW_TAILROOM || spec->sas < 1 ||
		    spec->sas > 1u << INBOUND_BITS)
			fail("not a spec", i);
		set_up(spec);
	}
	for (unsigned long round = 0; round < rounds; round++) {
		fprintf(stderr, "round %lu of %lu\n", round + 1, rounds);
		for (int i = 0; i < count; i++)
			specs[i].cycles[round] = measure(&specs[i], find_measure(specs[i].what));
	}
	print(specs, count, argv + 4);
	for (int i = 0; i < count; i++) {
		gw_worker_free(specs[i].worker);
		free(specs[i].sent);
		free(specs[i].keys);
	}
	free(buffers);
	return 0;
}
