/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sending: packets are written in bursts, sealed where they are ESP, and handed to the kernel with one
 * system call: by a packet socket, or as live frames (ebpf/xdp_live.bpf.c), which cost a tenth. Those
 * lie in the memory of a map, which is then where packets are written.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gw_live.h"
#include "traffic.h"

/* Between two looks at the clock when packets are not due yet. */
#define PACE_NS 20000
/* Pages that the kernel has in hand at once; more overflow the queue of a veth device. */
#define LIVE_PAGES 64u

static uint8_t *slots;
static uint64_t next_number;
static struct {
	int program; /* -1: there is none */
	struct gw_live_burst *burst;
} live = {.program = -1};

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

/* --- a load */

/* What is sealed is written whole; of plaintext only headers, so that more of them fit into the cache. */
static void size_burst(struct sender *sender, int seals)
{
	unsigned int longest = sizeof(struct inner);

	sender->burst = BURST;
	if (live.program < 0)
		return;
	for (unsigned int i = 0; seals && i < sender->load->size_count; i++)
		if (sender->load->sizes[i] > longest)
			longest = sender->load->sizes[i];
	sender->burst = LIVE_BYTES / longest;
	if (sender->burst > LIVE_BURST)
		sender->burst = LIVE_BURST;
	live.burst->stored = seals ? 0 : ETH_HLEN + sizeof(struct inner);
}

void sender_open(struct sender *sender, const struct load *load)
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
	size_burst(sender, load->is_esp && !load->is_out);
}

void sender_close(struct sender *sender)
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
	if (seals && gw_seal_burst(sealing, sender->packets, count, now_ns) != count)
		fail("a packet was not sealed: %s", gw_drop_name(sender->packets[0].verdict));
	for (unsigned int i = 0; i < count; i++)
		memcpy(sender->packets[i].data - ETH_HLEN, &sender->port->link, ETH_HLEN);
}

/* Send what was prepared; what the device has no room for is tried again, while there is time. */
static unsigned int send_by_socket(struct sender *sender, unsigned int count, uint64_t end_ns)
{
	static struct mmsghdr messages[BURST];
	static struct iovec vectors[BURST];
	unsigned int done = 0;

	for (unsigned int i = 0; i < count; i++) {
		const struct gw_packet *packet = &sender->packets[i];

		vectors[i] = (struct iovec){packet->data - ETH_HLEN, packet->length + ETH_HLEN};
		messages[i].msg_hdr.msg_iov = &vectors[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	while (done < count) {
		int sent = sendmmsg(sender->socket, messages + done, count - done, 0);

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
	return done;
}

/* Have the program send all slots of the burst, the longest of which has so many bytes. */
static int run_live_frames(unsigned int count, uint32_t longest)
{
	static const uint8_t nothing[SLOT_BYTES];
	union bpf_attr attributes;

	live.burst->slots_used = count;
	live.burst->next_slot = 0;
	live.burst->pending = 0;
	while (live.burst->next_slot < count) {
		uint32_t before = live.burst->next_slot, runs = count - before;

		memset(&attributes, 0, sizeof(attributes));
		attributes.test.prog_fd = (uint32_t)live.program;
		attributes.test.repeat = runs;
		attributes.test.data_in = (uint64_t)(uintptr_t)nothing;
		attributes.test.data_size_in = longest;
		attributes.test.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
		attributes.test.batch_size = runs < LIVE_PAGES ? runs : LIVE_PAGES;
		if (syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attributes, sizeof(attributes)) &&
		    live.burst->next_slot == before)
			return -errno;
	}
	return 0;
}

/* Return how many packets the device has taken; the others are lost. */
static unsigned int send_live_frames(struct sender *sender, unsigned int count)
{
	uint64_t before = live.burst->sent;
	uint32_t longest = 0;
	int error;

	for (unsigned int i = 0; i < count; i++) {
		const struct gw_packet *packet = &sender->packets[i];
		uint32_t length = packet->length + ETH_HLEN;

		live.burst->slots[i] = (struct gw_live_slot){
			.frame = i,
			.offset = (uint16_t)(packet->data - ETH_HLEN - slots - i * SLOT_BYTES),
			.length = (uint16_t)length,
		};
		longest = length > longest ? length : longest;
	}
	live.burst->ifindex = (uint32_t)sender->port->index;
	error = run_live_frames(count, longest);
	if (error)
		fprintf(stderr, "live frames cannot be sent: %s\n", strerror(-error));
	return (unsigned int)(live.burst->sent - before);
}

static void transmit(struct sender *sender, unsigned int count, uint64_t end_ns)
{
	unsigned int done;

	if (live.program < 0) {
		done = send_by_socket(sender, count, end_ns);
	} else {
		done = send_live_frames(sender, count);
		sender->errors += count - done;
		if (!done && !sender->sent) {
			fprintf(stderr, "%s takes no live frames: packets go by a socket\n",
				sender->port->name);
			live.program = -1;
			sender->burst = BURST;
		}
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
			return sender->burst;
		due = (double)(now_ns - start_ns) / 1e9 * load->pps -
		      (double)(next_number - sender->first_number);
		if (due >= 1)
			return due > sender->burst ? sender->burst : (unsigned int)due;
		nanosleep(&pause, NULL);
	}
}

/* --- life */

void sender_run(struct sender *sender, uint64_t start_ns, uint64_t end_ns)
{
	unsigned int count;

	while ((count = wait_until_due(sender, start_ns, end_ns))) {
		prepare(sender, count);
		transmit(sender, count, end_ns);
	}
}

const char *sender_method(void)
{
	return live.program < 0 ? "packet socket" : "live frames";
}

void sender_start(const int *descriptors)
{
	if (!descriptors) {
		slots = aligned_alloc(4096, (size_t)BURST * SLOT_BYTES);
		if (!slots)
			fail("no memory");
	} else {
		live.program = descriptors[0];
		live.burst = mmap(NULL, sizeof(*live.burst), PROT_READ | PROT_WRITE, MAP_SHARED,
				  descriptors[1], 0);
		slots = mmap(NULL, (size_t)LIVE_BURST * SLOT_BYTES, PROT_READ | PROT_WRITE,
			     MAP_SHARED, descriptors[2], 0);
		if (live.burst == MAP_FAILED || slots == MAP_FAILED)
			fail("the maps of live frames cannot be mapped: %s", strerror(errno));
	}
	memset(slots, 0x5a, (size_t)(descriptors ? LIVE_BURST : BURST) * SLOT_BYTES);
}
