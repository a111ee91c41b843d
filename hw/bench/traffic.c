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
 * Latency is from before the system call that sent a packet until the kernel received it here.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "gw_engine.h"

#define BURST       64u
#define SLOT_BYTES  2048u
#define FRONT       128u /* room for what sealing puts before a packet, and the link header */
#define MAX_SIZES   16u
#define MAX_SAS     16384u
#define MAX_SAMPLES (1u << 20)
#define MAGIC       0x67776265u /* "gwbe" */
#define MIN_INNER   56u         /* IPv4, UDP, struct payload and not less */

#define RING_BLOCKS      64u
#define RING_BLOCK_BYTES (1u << 18)
#define RING_RETIRE_MS   1u

/* With nothing arriving for so long after the last packet was sent, what is missing is lost. */
#define QUIET_NS     200000000u
#define MAX_DRAIN_NS 3000000000u
/* Between two looks at the clock when packets are not due yet. */
#define PACE_NS 20000

#define PROTOCOL_UDP 17
#define PROTOCOL_ESP 50
#define AES_GCM_16   20  /* IANA, Transform Type 1 */
#define ESP_INNER    36u /* IPv4, ESP header, IV of AES-GCM (RFC 4106 section 3) */

struct payload {
	uint32_t magic;
	uint32_t flow;
	uint64_t number;
	uint64_t sent_ns; /* CLOCK_REALTIME, as the kernel's stamps of received packets */
} __attribute__((packed));

struct inner {
	uint8_t ip[20];
	uint16_t source_port_be, destination_port_be, bytes_be, checksum;
	struct payload payload;
} __attribute__((packed));

struct port {
	char name[IFNAMSIZ];
	struct ethhdr link; /* as we send */
	int index;
};

struct sa {
	uint32_t spi_out, spi_in;
	uint8_t key_out[36], key_in[36];
};

struct load {
	int is_out, is_esp;
	double pps, seconds;
	unsigned int flows, sample, sizes[MAX_SIZES], size_count;
};

/* The receiving thread's; the atomic ones are read by the other. */
struct sink {
	const struct load *load;
	int socket;
	uint8_t *ring;
	atomic_uint_fast64_t received;
	atomic_int stop;
	uint64_t bytes, samples, bad, clear;
	uint64_t *latency_ns;
	size_t latencies;
};

static struct port lan, outer;
static struct {
	uint8_t gateway[4], peer[4];
	unsigned int key_bits;
} tunnel;
static struct sa *sas;
static unsigned int sa_count;
static struct gw_worker *worker;      /* the sender's: seals */
static struct gw_worker *sink_worker; /* the sink's: opens samples */
static uint8_t *slots;
static uint64_t next_number;

static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *format, ...)
{
	va_list arguments;

	printf("{\"error\": \"");
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\"}\n");
	exit(1);
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
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

	if (worker)
		return;
	worker = gw_worker_new(&config, &error);
	sink_worker = gw_worker_new(&config, &error);
	if (!worker || !sink_worker)
		fail("no ESP worker (%d)", error);
	for (unsigned int i = 0; i < sa_count; i++) {
		struct gw_sa_params params;
		uint32_t ref;

		fill_params(&params, &sas[i], i, 1);
		error = gw_sa_add(worker, &params, NULL, &ref);
		if (error == GW_OK) {
			fill_params(&params, &sas[i], i, 0);
			error = gw_sa_add(sink_worker, &params, NULL, &ref);
		}
		if (error != GW_OK)
			fail("SA %u is refused (%d)", i, error);
	}
}

/* --- packets */

static uint16_t ip_checksum(const uint8_t *header)
{
	uint32_t sum = 0;

	for (int i = 0; i < 20; i += 2)
		sum += (uint32_t)header[i] << 8 | header[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

/* Hosts behind the gateway are 10.1.0.0/16, one a flow; those behind the peer 10.128.0.0/9, a /24 an SA. */
static void fill_inner(struct inner *inner, const struct load *load, unsigned int flow,
		       unsigned int bytes)
{
	unsigned int network = load->is_esp ? flow % sa_count : 0;
	uint32_t near = htonl(0x0a010000u + (flow & 0xffff));
	uint32_t far = htonl(0x0a800001u + (network << 8));
	uint16_t length = htons((uint16_t)bytes), sum;

	memset(inner, 0, sizeof(*inner));
	inner->ip[0] = 0x45;
	memcpy(inner->ip + 2, &length, 2);
	inner->ip[6] = 0x40; /* DF */
	inner->ip[8] = 64;
	inner->ip[9] = PROTOCOL_UDP;
	memcpy(inner->ip + 12, load->is_out ? &near : &far, 4);
	memcpy(inner->ip + 16, load->is_out ? &far : &near, 4);
	sum = ip_checksum(inner->ip);
	memcpy(inner->ip + 10, &sum, 2);
	inner->source_port_be = htons((uint16_t)(1024 + flow % 60000));
	inner->destination_port_be = htons(9); /* discard */
	inner->bytes_be = htons((uint16_t)(bytes - 20));
	inner->payload.magic = MAGIC;
	inner->payload.flow = flow;
}

/* --- sending */

struct sender {
	const struct load *load;
	const struct port *port;
	int socket;
	struct inner *templates; /* by flow, then by size */
	struct mmsghdr messages[BURST];
	struct iovec vectors[BURST];
	struct gw_packet packets[BURST];
	uint64_t first_number, sent, errors;
};

static void open_sender(struct sender *sender, const struct load *load)
{
	struct sockaddr_ll address = {.sll_family = AF_PACKET};
	int on = 1;

	memset(sender, 0, sizeof(*sender));
	sender->load = load;
	sender->port = load->is_out ? &lan : &outer;
	sender->first_number = next_number;
	/* Protocol 0: it receives nothing. */
	sender->socket = socket(AF_PACKET, SOCK_RAW, 0);
	address.sll_ifindex = sender->port->index;
	if (sender->socket < 0 ||
	    bind(sender->socket, (struct sockaddr *)&address, sizeof(address)))
		fail("no packet socket on %s: %s", sender->port->name, strerror(errno));
	setsockopt(sender->socket, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on));
	sender->templates = calloc((size_t)load->flows * load->size_count, sizeof(struct inner));
	if (!sender->templates)
		fail("no memory for %u flows", load->flows);
	for (unsigned int flow = 0; flow < load->flows; flow++)
		for (unsigned int size = 0; size < load->size_count; size++)
			fill_inner(&sender->templates[flow * load->size_count + size], load, flow,
				   load->sizes[size]);
	for (unsigned int i = 0; i < BURST; i++) {
		sender->messages[i].msg_hdr.msg_iov = &sender->vectors[i];
		sender->messages[i].msg_hdr.msg_iovlen = 1;
	}
}

static void close_sender(struct sender *sender)
{
	close(sender->socket);
	free(sender->templates);
}

/* Write `count` packets, sealed if they go to the outer side as ESP. */
static void prepare(struct sender *sender, unsigned int count)
{
	const struct load *load = sender->load;
	int seals = load->is_esp && !load->is_out;
	uint64_t now_ns = clock_ns(CLOCK_REALTIME);

	for (unsigned int i = 0; i < count; i++) {
		struct gw_packet *packet = &sender->packets[i];
		uint64_t number = next_number + i;
		unsigned int flow = (unsigned int)(number % load->flows);
		unsigned int size = (unsigned int)(number / load->flows % load->size_count);
		struct inner *inner;

		*packet = (struct gw_packet){
			.data = slots + i * SLOT_BYTES + FRONT,
			.length = load->sizes[size],
			.ref = seals ? flow % sa_count : 0,
			.headroom = FRONT,
			.tailroom = (uint16_t)(SLOT_BYTES - FRONT - load->sizes[size]),
		};
		inner = (struct inner *)packet->data;
		*inner = sender->templates[flow * load->size_count + size];
		inner->payload.number = number;
		inner->payload.sent_ns = now_ns;
	}
	if (seals && gw_seal_burst(worker, sender->packets, count, now_ns) != count)
		fail("a packet was not sealed: %s", gw_drop_name(sender->packets[0].verdict));
	for (unsigned int i = 0; i < count; i++) {
		uint8_t *frame = sender->packets[i].data - ETH_HLEN;

		memcpy(frame, &sender->port->link, ETH_HLEN);
		sender->vectors[i] = (struct iovec){frame, sender->packets[i].length + ETH_HLEN};
	}
}

/* Send what was prepared; what the device has no room for is tried again, while there is time. */
static void transmit(struct sender *sender, unsigned int count, uint64_t end_ns)
{
	unsigned int done = 0;

	while (done < count) {
		int sent = sendmmsg(sender->socket, sender->messages + done, count - done, 0);

		if (sent > 0) {
			done += (unsigned int)sent;
			continue;
		}
		sender->errors++;
		if (errno != EAGAIN && errno != ENOBUFS && errno != EINTR)
			fail("cannot send on %s: %s", sender->port->name, strerror(errno));
		if (clock_ns(CLOCK_MONOTONIC) > end_ns)
			break;
	}
	sender->sent += done;
	next_number += count; /* sequence numbers of sealed packets are spent, sent or not */
}

/* Return how many packets are due, at least one: until then it sleeps. 0: the time is over. */
static unsigned int wait_until_due(const struct sender *sender, uint64_t start_ns, uint64_t end_ns)
{
	const struct load *load = sender->load;

	for (;;) {
		uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
		struct timespec pause = {0, PACE_NS};
		double due;

		if (now_ns >= end_ns)
			return 0;
		if (load->pps <= 0)
			return BURST;
		due = (double)(now_ns - start_ns) / 1e9 * load->pps -
		      (double)(next_number - sender->first_number);
		if (due >= 1)
			return due > BURST ? BURST : (unsigned int)due;
		nanosleep(&pause, NULL);
	}
}

/* --- receiving */

static void open_sink(struct sink *sink, const struct load *load)
{
	const struct port *port = load->is_out ? &outer : &lan;
	struct sockaddr_ll address = {.sll_family = AF_PACKET,
				      .sll_protocol = htons(ETH_P_IP),
				      .sll_ifindex = port->index};
	struct tpacket_req3 request = {
		.tp_block_size = RING_BLOCK_BYTES,
		.tp_block_nr = RING_BLOCKS,
		.tp_frame_size = SLOT_BYTES,
		.tp_frame_nr = RING_BLOCKS * (RING_BLOCK_BYTES / SLOT_BYTES),
		.tp_retire_blk_tov = RING_RETIRE_MS,
	};
	int version = TPACKET_V3, on = 1;

	sink->load = load;
	sink->socket = socket(AF_PACKET, SOCK_RAW, 0);
	if (sink->socket < 0 ||
	    setsockopt(sink->socket, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) ||
	    setsockopt(sink->socket, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) ||
	    setsockopt(sink->socket, SOL_PACKET, PACKET_RX_RING, &request, sizeof(request)))
		fail("no packet ring on %s: %s", port->name, strerror(errno));
	sink->ring = mmap(NULL, (size_t)RING_BLOCKS * RING_BLOCK_BYTES, PROT_READ | PROT_WRITE,
			  MAP_SHARED, sink->socket, 0);
	if (sink->ring == MAP_FAILED ||
	    bind(sink->socket, (struct sockaddr *)&address, sizeof(address)))
		fail("no packet ring on %s: %s", port->name, strerror(errno));
}

static void close_sink(struct sink *sink)
{
	munmap(sink->ring, (size_t)RING_BLOCKS * RING_BLOCK_BYTES);
	close(sink->socket);
}

static void take_sample(struct sink *sink, const uint8_t *packet, size_t bytes, uint64_t at_ns)
{
	const struct inner *inner = (const struct inner *)packet;
	uint64_t sent_ns;

	sink->samples++;
	if (bytes < sizeof(*inner) || inner->payload.magic != MAGIC) {
		sink->bad++;
		return;
	}
	sent_ns = inner->payload.sent_ns;
	if (sink->latencies < MAX_SAMPLES)
		sink->latency_ns[sink->latencies++] = at_ns > sent_ns ? at_ns - sent_ns : 0;
}

/* Is the inner packet behind ESP's header and AES-GCM's IV as it was before? */
static int is_clear(const uint8_t *packet, size_t bytes)
{
	const struct inner *inner = (const struct inner *)(packet + ESP_INNER);

	return bytes >= ESP_INNER + sizeof(*inner) && inner->payload.magic == MAGIC;
}

static void take_esp(struct sink *sink, const uint8_t *packet, size_t bytes, uint64_t at_ns)
{
	uint8_t copy[SLOT_BYTES];
	struct gw_packet opened = {.data = copy, .length = (uint32_t)bytes};
	uint32_t spi, sequence;

	memcpy(&spi, packet + 20, 4);
	memcpy(&sequence, packet + 24, 4);
	if (ntohl(spi) - sas[0].spi_out >= sa_count)
		return;
	atomic_fetch_add_explicit(&sink->received, 1, memory_order_relaxed);
	sink->bytes += bytes;
	if (ntohl(sequence) & (sink->load->sample - 1) || bytes > sizeof(copy))
		return;
	memcpy(copy, packet, bytes);
	if (gw_open_burst(sink_worker, &opened, 1, at_ns) == 1) {
		take_sample(sink, opened.data, opened.length, at_ns);
		return;
	}
	sink->samples++;
	if (is_clear(packet, bytes))
		sink->clear++;
	else
		sink->bad++;
}

static void take_plain(struct sink *sink, const uint8_t *packet, size_t bytes, uint64_t at_ns)
{
	const struct inner *inner = (const struct inner *)packet;

	if (bytes < sizeof(*inner) || inner->payload.magic != MAGIC)
		return;
	atomic_fetch_add_explicit(&sink->received, 1, memory_order_relaxed);
	sink->bytes += bytes;
	if (!(inner->payload.number & (sink->load->sample - 1)))
		take_sample(sink, packet, bytes, at_ns);
}

static void take_frame(struct sink *sink, const struct tpacket3_hdr *frame)
{
	const uint8_t *packet = (const uint8_t *)frame + frame->tp_net;
	uint64_t at_ns = (uint64_t)frame->tp_sec * 1000000000u + frame->tp_nsec;
	size_t bytes = frame->tp_snaplen - (size_t)(frame->tp_net - frame->tp_mac);
	size_t told;

	if (bytes < 28 || packet[0] != 0x45)
		return;
	told = (size_t)packet[2] << 8 | packet[3]; /* a short frame was padded */
	bytes = told < bytes ? told : bytes;
	if (packet[9] == PROTOCOL_ESP && sink->load->is_esp && sink->load->is_out)
		take_esp(sink, packet, bytes, at_ns);
	else if (packet[9] == PROTOCOL_UDP && !(sink->load->is_esp && sink->load->is_out))
		take_plain(sink, packet, bytes, at_ns);
}

static void *receive(void *argument)
{
	struct sink *sink = argument;
	struct pollfd readable = {.fd = sink->socket, .events = POLLIN};
	unsigned int at = 0;

	while (!atomic_load(&sink->stop)) {
		struct tpacket_block_desc *block =
			(struct tpacket_block_desc *)(sink->ring + (size_t)at * RING_BLOCK_BYTES);
		uint32_t status = __atomic_load_n(&block->hdr.bh1.block_status, __ATOMIC_ACQUIRE);
		struct tpacket3_hdr *frame;

		if (!(status & TP_STATUS_USER)) {
			poll(&readable, 1, 10);
			continue;
		}
		frame = (struct tpacket3_hdr *)((uint8_t *)block +
						block->hdr.bh1.offset_to_first_pkt);
		for (uint32_t i = 0; i < block->hdr.bh1.num_pkts; i++) {
			take_frame(sink, frame);
			frame = (struct tpacket3_hdr *)((uint8_t *)frame + frame->tp_next_offset);
		}
		__atomic_store_n(&block->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
		at = (at + 1) % RING_BLOCKS;
	}
	return NULL;
}

static void drain(struct sink *sink)
{
	uint64_t last_ns = clock_ns(CLOCK_MONOTONIC), give_up_ns = last_ns + MAX_DRAIN_NS;
	uint64_t seen = atomic_load(&sink->received);

	for (;;) {
		const struct timespec pause = {0, 5000000};
		uint64_t now_ns, received;

		nanosleep(&pause, NULL);
		now_ns = clock_ns(CLOCK_MONOTONIC);
		received = atomic_load(&sink->received);
		if (received != seen) {
			seen = received;
			last_ns = now_ns;
		} else if (now_ns - last_ns > QUIET_NS) {
			return;
		}
		if (now_ns > give_up_ns)
			return;
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
	uint64_t start_ns, closed_ns, in_window, sender_ns, sink_start_ns, sink_ns;
	clockid_t sink_clock;
	pthread_t thread;
	unsigned int count;

	if (!sink.latency_ns)
		fail("no memory");
	if (load->is_esp)
		install_sas();
	open_sink(&sink, load);
	open_sender(&sender, load);
	if (pthread_create(&thread, NULL, receive, &sink) ||
	    pthread_getcpuclockid(thread, &sink_clock))
		fail("no thread");
	printf("{\"window\": \"open\"}\n");
	sink_start_ns = clock_ns(sink_clock);
	sender_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	start_ns = clock_ns(CLOCK_MONOTONIC);
	closed_ns = start_ns + (uint64_t)(load->seconds * 1e9);
	while ((count = wait_until_due(&sender, start_ns, closed_ns))) {
		prepare(&sender, count);
		transmit(&sender, count, closed_ns);
	}
	closed_ns = clock_ns(CLOCK_MONOTONIC);
	in_window = atomic_load(&sink.received);
	sender_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - sender_ns;
	sink_ns = clock_ns(sink_clock) - sink_start_ns;
	printf("{\"window\": \"closed\"}\n");
	drain(&sink);
	atomic_store(&sink.stop, 1);
	pthread_join(thread, NULL);
	getsockopt(sink.socket, SOL_PACKET, PACKET_STATISTICS, &statistics, &statistics_bytes);
	printf("{\"seconds\": %.6f, \"sent\": %" PRIu64 ", \"send_retries\": %" PRIu64
	       ", \"received_in_window\": %" PRIu64 ", \"received\": %" PRIu64
	       ", \"received_bytes\": %" PRIu64 ", \"sink_drops\": %u, \"samples\": %" PRIu64
	       ", \"bad_samples\": %" PRIu64 ", \"clear_samples\": %" PRIu64
	       ", \"sender_cpu_s\": %.6f, \"sink_cpu_s\": %.6f, ",
	       (double)(closed_ns - start_ns) / 1e9, sender.sent, sender.errors, in_window,
	       (uint64_t)atomic_load(&sink.received), sink.bytes, statistics.tp_drops, sink.samples,
	       sink.bad, sink.clear, (double)sender_ns / 1e9, (double)sink_ns / 1e9);
	print_latency(&sink);
	printf("}\n");
	close_sender(&sender);
	close_sink(&sink);
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

	if (worker || sa_count >= MAX_SAS)
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

int main(void)
{
	char line[512];

	setvbuf(stdout, NULL, _IOLBF, 0);
	prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* it has keys */
	slots = aligned_alloc(4096, (size_t)BURST * SLOT_BYTES);
	sas = calloc(MAX_SAS, sizeof(*sas));
	if (!slots || !sas)
		fail("no memory");
	memset(slots, 0x5a, (size_t)BURST * SLOT_BYTES);
	while (fgets(line, sizeof(line), stdin)) {
		char *words[8], *rest = line, *word;
		int count = 0;

		while (count < 8 && (word = strsep(&rest, " \n")))
			if (*word)
				words[count++] = word;
		if (count)
			obey(words, count);
	}
	gw_worker_free(worker);
	gw_worker_free(sink_worker);
	explicit_bzero(sas, MAX_SAS * sizeof(*sas));
	free(sas);
	free(slots);
	return 0;
}
