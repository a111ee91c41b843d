/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The traffic generator of `ipsecgw bench path`: numbered UDP packets through one IPsec gateway.
 *
 *     lan device --- plaintext --- [gateway] --- ESP or plaintext --- outer device
 *
 * Both devices are in this network namespace. Direction `out` sends on the lan device and counts on
 * the outer one, `in` the other way round, where this program is the peer: it seals what it sends,
 * with rising sequence numbers, and opens samples of what it receives. Outside the gateway all is
 * link layer: no address or neighbour is needed here.
 *
 * It is driven by lines on its standard input, and answers with one JSON object a line:
 *
 *     lan DEVICE GATEWAY_MAC                        tunnel GATEWAY_IPV4 PEER_IPV4 KEY_BITS
 *     outer DEVICE GATEWAY_MAC                      sa SPI_OUT KEY_OUT SPI_IN KEY_IN
 *     run out|in plain|esp PPS SECONDS FLOWS SAMPLE SIZES
 *
 * A line with nothing to say is answered by {}. KEY is AES-GCM's in hex with its salt behind it; PPS
 * 0 is as fast as it goes; one in SAMPLE packets is opened, checked and timed (a power of two); SIZES
 * are bytes of inner packets, with commas between, sent by turns. `run` answers {"window": "open"},
 * {"window": "closed"}, and what it counted. An error is {"error": TEXT}, after which it ends.
 *
 * traffic [--live PROGRAM,BURST,FRAMES] [--sink WANTED,COUNTS]: descriptors of the XDP programs and
 * maps that send and count, where gateway/bench/path/launch.py could load them.
 *
 * Latency is from before the system call that sent a packet until the kernel received it here.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/if_packet.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "traffic.h"

#define AES_GCM_16 20 /* IANA, Transform Type 1 */

struct port lan, outer;
struct sa *sas;
unsigned int sa_count;
struct gw_worker *sealing;
struct gw_worker *opening;
static struct tunnel tunnel;

void fail(const char *format, ...)
{
	va_list arguments;

	printf("{\"error\": \"");
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\"}\n");
	exit(1);
}

/* --- SAs */

static void fill_params(struct gw_sa_params *params, const struct sa *sa, unsigned int index,
			int seals)
{
	const uint8_t *source = seals ? tunnel.peer : tunnel.gateway;
	const uint8_t *destination = seals ? tunnel.gateway : tunnel.peer;

	memset(params, 0, sizeof(*params));
	params->spi = seals ? sa->spi_in : sa->spi_out;
	params->index = index;
	params->direction = seals ? GW_OUTBOUND : GW_INBOUND;
	params->protocol = PROTOCOL_ESP;
	params->family = 4;
	memcpy(params->source, source, 4);
	memcpy(params->destination, destination, 4);
	params->encryption = AES_GCM_16;
	params->key_bits = (uint16_t)tunnel.key_bits;
	params->encryption_key_bytes = (uint16_t)(tunnel.key_bits / 8 + 4);
	memcpy(params->encryption_key, seals ? sa->key_in : sa->key_out,
	       params->encryption_key_bytes);
	params->soft_packets = params->hard_packets = GW_NEVER;
	params->soft_bytes = params->hard_bytes = GW_NEVER;
	params->next_sequence = 1;
	params->sequence_limit = GW_NEVER;
	params->local_selectors = params->remote_selectors = 1;
	for (unsigned int side = 0; side < 2; side++) {
		memset(params->selectors[side].end, 0xff, 4);
		params->selectors[side].end_port = UINT16_MAX;
		params->selectors[side].family = 4;
	}
}

static unsigned int bits_for(unsigned int count)
{
	unsigned int bits = 1;

	while (1u << bits < count)
		bits++;
	return bits;
}

/* Make both workers, when the first SA is needed: only then is the number of SAs known. */
static void install_sas(void)
{
	struct gw_worker_config config = {
		.inbound_bits = bits_for(sa_count), .outbound_sas = sa_count, .seed = {1}};
	enum gw_error error;

	if (sealing)
		return;
	sealing = gw_worker_new(&config, &error);
	opening = gw_worker_new(&config, &error);
	if (!sealing || !opening)
		fail("no ESP worker (%d)", error);
	for (unsigned int i = 0; i < sa_count; i++) {
		struct gw_sa_params params;
		uint32_t ref;

		fill_params(&params, &sas[i], i, 1);
		error = gw_sa_add(sealing, &params, NULL, &ref);
		if (error == GW_OK) {
			fill_params(&params, &sas[i], i, 0);
			error = gw_sa_add(opening, &params, NULL, &ref);
		}
		if (error != GW_OK)
			fail("SA %u is refused (%d)", i, error);
	}
}

/* --- one run */

static int compare(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

static void print_latency(struct sink *sink)
{
	static const struct {
		const char *name;
		double part;
	} percentiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1}};

	qsort(sink->latency_ns, sink->latencies, sizeof(*sink->latency_ns), compare);
	printf("\"latency_us\": {");
	for (size_t i = 0; sink->latencies && i < sizeof(percentiles) / sizeof(percentiles[0]);
	     i++) {
		size_t at = (size_t)(percentiles[i].part * (double)(sink->latencies - 1));

		printf("%s\"%s\": %.1f", i ? ", " : "", percentiles[i].name,
		       (double)sink->latency_ns[at] / 1e3);
	}
	printf("}");
}

static void run(const struct load *load)
{
	struct sink sink = {.latency_ns = malloc(MAX_SAMPLES * sizeof(uint64_t))};
	struct tpacket_stats_v3 statistics = {0};
	socklen_t statistics_bytes = sizeof(statistics);
	static struct sender sender;
	uint64_t start_ns, closed_ns, in_window, received, bytes, sender_ns, sink_start_ns, sink_ns;
	clockid_t sink_clock;
	pthread_t thread;

	if (!sink.latency_ns)
		fail("no memory");
	if (load->is_esp)
		install_sas();
	sink_open(&sink, load);
	sender_open(&sender, load);
	if (pthread_create(&thread, NULL, sink_run, &sink) ||
	    pthread_getcpuclockid(thread, &sink_clock))
		fail("no thread");
	printf("{\"window\": \"open\"}\n");
	sink_start_ns = clock_ns(sink_clock);
	sender_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	start_ns = clock_ns(CLOCK_MONOTONIC);
	closed_ns = start_ns + (uint64_t)(load->seconds * 1e9);
	sender_run(&sender, start_ns, closed_ns);
	closed_ns = clock_ns(CLOCK_MONOTONIC);
	in_window = sink_count(&sink, &bytes);
	sender_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - sender_ns;
	sink_ns = clock_ns(sink_clock) - sink_start_ns;
	printf("{\"window\": \"closed\"}\n");
	sink_drain(&sink);
	received = sink_count(&sink, &bytes);
	atomic_store(&sink.stop, 1);
	pthread_join(thread, NULL);
	getsockopt(sink.socket, SOL_PACKET, PACKET_STATISTICS, &statistics, &statistics_bytes);
	printf("{\"seconds\": %.6f, \"sent\": %" PRIu64 ", \"send_retries\": %" PRIu64
	       ", \"received_in_window\": %" PRIu64 ", \"received\": %" PRIu64
	       ", \"received_bytes\": %" PRIu64 ", \"sink_drops\": %u, \"samples\": %" PRIu64
	       ", \"bad_samples\": %" PRIu64 ", \"clear_samples\": %" PRIu64
	       ", \"method\": \"%s\", \"sender_cpu_s\": %.6f, \"sink_cpu_s\": %.6f, ",
	       (double)(closed_ns - start_ns) / 1e9, sender.sent, sender.errors, in_window,
	       received, bytes, statistics.tp_drops, sink.samples, sink.bad, sink.clear,
	       sender_method(), (double)sender_ns / 1e9, (double)sink_ns / 1e9);
	print_latency(&sink);
	printf("}\n");
	sender_close(&sender);
	sink_close(&sink);
	free(sink.latency_ns);
}

/* --- the lines */

static void read_port(struct port *port, const char *name, const char *mac)
{
	struct ifreq request = {0};
	unsigned int octets[ETH_ALEN];
	int probe = socket(AF_INET, SOCK_DGRAM, 0);

	snprintf(port->name, sizeof(port->name), "%s", name);
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (sscanf(mac, "%x:%x:%x:%x:%x:%x", &octets[0], &octets[1], &octets[2], &octets[3],
		   &octets[4], &octets[5]) != ETH_ALEN)
		fail("%s is no link address", mac);
	if (ioctl(probe, SIOCGIFHWADDR, &request))
		fail("no device %s: %s", name, strerror(errno));
	close(probe);
	for (int i = 0; i < ETH_ALEN; i++)
		port->link.h_dest[i] = (uint8_t)octets[i];
	memcpy(port->link.h_source, request.ifr_hwaddr.sa_data, ETH_ALEN);
	port->link.h_proto = htons(ETH_P_IP);
	port->index = (int)if_nametoindex(name);
}

static void read_key(uint8_t *key, const char *hex)
{
	size_t bytes = tunnel.key_bits / 8 + 4;

	if ((tunnel.key_bits != 128 && tunnel.key_bits != 256) || strlen(hex) != 2 * bytes)
		fail("a key has the wrong length, or there is no tunnel yet");
	for (size_t i = 0; i < bytes; i++) {
		unsigned int octet;

		if (sscanf(hex + 2 * i, "%2x", &octet) != 1)
			fail("a key is not in hex");
		key[i] = (uint8_t)octet;
	}
}

static void read_sa(const char *spi_out, const char *key_out, const char *spi_in,
		    const char *key_in)
{
	struct sa *sa = &sas[sa_count];

	if (sealing || sa_count >= MAX_SAS)
		fail("SAs come before the first run, at most %u", MAX_SAS);
	sa->spi_out = (uint32_t)strtoul(spi_out, NULL, 0);
	sa->spi_in = (uint32_t)strtoul(spi_in, NULL, 0);
	if (sa->spi_out != sas[0].spi_out + sa_count)
		fail("SPIs are counted up");
	read_key(sa->key_out, key_out);
	read_key(sa->key_in, key_in);
	sa_count++;
}

static void read_load(struct load *load, char *words[8])
{
	char *rest = words[7], *size;

	memset(load, 0, sizeof(*load));
	load->is_out = strcmp(words[1], "out") == 0;
	load->is_esp = strcmp(words[2], "esp") == 0;
	load->pps = strtod(words[3], NULL);
	load->seconds = strtod(words[4], NULL);
	load->flows = (unsigned int)strtoul(words[5], NULL, 10);
	load->sample = (unsigned int)strtoul(words[6], NULL, 10);
	while ((size = strsep(&rest, ",")) && load->size_count < MAX_SIZES)
		load->sizes[load->size_count++] = (unsigned int)strtoul(size, NULL, 10);
	for (unsigned int i = 0; i < load->size_count; i++)
		if (load->sizes[i] < MIN_INNER || load->sizes[i] > SLOT_BYTES - FRONT - GW_TAILROOM)
			fail("packets of %u bytes cannot be sent", load->sizes[i]);
	if (!load->flows || load->flows > 1u << 20 || !load->sample ||
	    load->sample & (load->sample - 1) || load->seconds <= 0 || !lan.index || !outer.index ||
	    (load->is_esp && !sa_count))
		fail("a run needs devices, SAs for ESP, flows, a time, and a power of two to "
		     "sample by");
}

static void obey(char *words[8], int count)
{
	struct load load;

	if (count == 3 && !strcmp(words[0], "lan"))
		read_port(&lan, words[1], words[2]);
	else if (count == 3 && !strcmp(words[0], "outer"))
		read_port(&outer, words[1], words[2]);
	else if (count == 4 && !strcmp(words[0], "tunnel")) {
		if (inet_pton(AF_INET, words[1], tunnel.gateway) != 1 ||
		    inet_pton(AF_INET, words[2], tunnel.peer) != 1)
			fail("an outer address is none");
		tunnel.key_bits = (unsigned int)strtoul(words[3], NULL, 10);
	} else if (count == 5 && !strcmp(words[0], "sa"))
		read_sa(words[1], words[2], words[3], words[4]);
	else if (count == 8 && !strcmp(words[0], "run")) {
		read_load(&load, words);
		run(&load);
		return;
	} else
		fail("a line was not understood");
	printf("{}\n");
}

static void read_options(int argc, char **argv)
{
	int live[3], sink[2], has_live = 0, has_sink = 0;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--live"))
			has_live = sscanf(argv[i + 1], "%d,%d,%d", &live[0], &live[1], &live[2]);
		else if (!strcmp(argv[i], "--sink"))
			has_sink = sscanf(argv[i + 1], "%d,%d", &sink[0], &sink[1]);
	}
	sender_start(has_live == 3 ? live : NULL);
	sink_start(has_sink == 2 ? sink : NULL);
}

int main(int argc, char **argv)
{
	char line[512];

	setvbuf(stdout, NULL, _IOLBF, 0);
	prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* it has keys */
	read_options(argc, argv);
	sas = calloc(MAX_SAS, sizeof(*sas));
	if (!sas)
		fail("no memory");
	while (fgets(line, sizeof(line), stdin)) {
		char *words[8], *rest = line, *word;
		int count = 0;

		while (count < 8 && (word = strsep(&rest, " \n")))
			if (*word)
				words[count++] = word;
		if (count)
			obey(words, count);
	}
	gw_worker_free(sealing);
	gw_worker_free(opening);
	explicit_bzero(sas, MAX_SAS * sizeof(*sas));
	free(sas);
	return 0;
}
