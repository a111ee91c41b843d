/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receiving: a packet socket with a ring, whose kernel stamps tell when packets came. Where an XDP
 * program counts and drops (ebpf/xdp_sink.bpf.c), the socket has only the samples.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gw_sink.h"
#include "traffic.h"

#define RING_BLOCKS      64u
#define RING_BLOCK_BYTES (1u << 18)
#define RING_RETIRE_MS   1u

/* With nothing arriving for so long after the last packet was sent, what is missing is lost. */
#define QUIET_NS     200000000u
#define MAX_DRAIN_NS 3000000000u

#define ESP_INNER 36u /* IPv4, ESP header, IV of AES-GCM (RFC 4106 section 3) */

static struct {
	struct gw_sink_wanted *wanted; /* NULL: there is no program */
	struct gw_sink_count *counts;
} xdp;

void sink_start(const int *descriptors)
{
	if (!descriptors)
		return;
	xdp.wanted = mmap(NULL, sizeof(*xdp.wanted), PROT_READ | PROT_WRITE, MAP_SHARED,
			  descriptors[0], 0);
	xdp.counts = mmap(NULL, GW_SINK_CPUS * sizeof(*xdp.counts), PROT_READ | PROT_WRITE,
			  MAP_SHARED, descriptors[1], 0);
	if (xdp.wanted == MAP_FAILED || xdp.counts == MAP_FAILED)
		fail("the maps of the sink cannot be mapped: %s", strerror(errno));
}

static int is_carried_as_esp(const struct load *load)
{
	return load->is_esp && load->is_out;
}

/* Have the program count what a load will bring; without one, nothing. */
static void want(const struct load *load)
{
	if (!xdp.wanted)
		return;
	memset(xdp.counts, 0, GW_SINK_CPUS * sizeof(*xdp.counts));
	memset(xdp.wanted, 0, sizeof(*xdp.wanted));
	if (!load)
		return;
	xdp.wanted->first_spi = sa_count ? sas[0].spi_out : 0;
	xdp.wanted->spis = sa_count;
	xdp.wanted->magic = MAGIC;
	xdp.wanted->sample_mask = load->sample - 1;
	xdp.wanted->protocol = is_carried_as_esp(load) ? PROTOCOL_ESP : PROTOCOL_UDP;
}

/* What the socket has seen is part of what the program has counted, unless a driver took the program
 * and does not run it. */
uint64_t sink_count(const struct sink *sink, uint64_t *bytes)
{
	uint64_t packets = 0;

	*bytes = 0;
	for (unsigned int cpu = 0; xdp.wanted && cpu < GW_SINK_CPUS; cpu++) {
		packets += __atomic_load_n(&xdp.counts[cpu].packets, __ATOMIC_RELAXED);
		*bytes += __atomic_load_n(&xdp.counts[cpu].bytes, __ATOMIC_RELAXED);
	}
	if (packets)
		return packets;
	*bytes = atomic_load(&sink->bytes);
	return atomic_load(&sink->received);
}

static void count(struct sink *sink, size_t bytes)
{
	atomic_fetch_add_explicit(&sink->received, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&sink->bytes, bytes, memory_order_relaxed);
}

void sink_open(struct sink *sink, const struct load *load)
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
	want(load);
}

void sink_close(struct sink *sink)
{
	want(NULL);
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
	count(sink, bytes);
	if (ntohl(sequence) & (sink->load->sample - 1) || bytes > sizeof(copy))
		return;
	memcpy(copy, packet, bytes);
	if (gw_open_burst(opening, &opened, 1, at_ns) == 1) {
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
	count(sink, bytes);
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
	if (packet[9] == PROTOCOL_ESP && is_carried_as_esp(sink->load))
		take_esp(sink, packet, bytes, at_ns);
	else if (packet[9] == PROTOCOL_UDP && !is_carried_as_esp(sink->load))
		take_plain(sink, packet, bytes, at_ns);
}

void *sink_run(void *argument)
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

void sink_drain(const struct sink *sink)
{
	uint64_t last_ns = clock_ns(CLOCK_MONOTONIC), give_up_ns = last_ns + MAX_DRAIN_NS;
	uint64_t bytes, seen = sink_count(sink, &bytes);

	for (;;) {
		const struct timespec pause = {0, 5000000};
		uint64_t now_ns, received;

		nanosleep(&pause, NULL);
		now_ns = clock_ns(CLOCK_MONOTONIC);
		received = sink_count(sink, &bytes);
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
