/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the traffic generator share: one gateway, its SAs, one load at a time. */
#ifndef GW_TRAFFIC_H
#define GW_TRAFFIC_H

#include <linux/if_ether.h>
#include <net/if.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "gw_engine.h"

struct gw_live_burst;
struct gw_sink_count;
struct gw_sink_wanted;

#define BURST       64u            /* with one system call of a packet socket */
#define LIVE_BURST  512u           /* as live frames, */
#define LIVE_BYTES  (384u * 1024u) /* and not more than stays in the CPU's cache */
#define SLOT_BYTES  2048u
#define FRONT       128u /* room for what sealing puts before a packet, and the link header */
#define MAX_SIZES   16u
#define MAX_SAS     16384u
#define MAX_SAMPLES (1u << 20)
#define MAGIC       0x67776265u /* "gwbe" */
#define MIN_INNER   56u         /* IPv4, UDP, struct payload and not less */

#define PROTOCOL_UDP 17
#define PROTOCOL_ESP 50

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

struct sender {
	const struct load *load;
	const struct port *port;
	int socket;
	struct inner *templates; /* by flow, then by size */
	struct gw_packet packets[LIVE_BURST];
	uint64_t first_number, sent, errors;
	unsigned int burst; /* packets with one system call, at most */
};

/* The receiving thread's; what is atomic the other reads too. */
struct sink {
	const struct load *load;
	int socket;
	uint8_t *ring;
	atomic_uint_fast64_t received, bytes; /* by the socket; see sink_count */
	atomic_int stop;
	uint64_t samples, bad, clear;
	uint64_t *latency_ns;
	size_t latencies;
};

struct tunnel {
	uint8_t gateway[4], peer[4];
	unsigned int key_bits;
};

extern struct port lan, outer;
extern struct sa *sas;
extern unsigned int sa_count;
extern struct gw_worker *sealing; /* the sender's */
extern struct gw_worker *opening; /* the sink's */

/* Say what is wrong, as an answer, and end. */
void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

static inline uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* --- send.c */

/* Get memory for packets: of live frames, where descriptors of their program and maps are given. */
void sender_start(const int *live);

/* How packets are sent now. */
const char *sender_method(void);

void sender_open(struct sender *sender, const struct load *load);
void sender_close(struct sender *sender);

/* Send what is due until the time is over. */
void sender_run(struct sender *sender, uint64_t start_ns, uint64_t end_ns);

/* --- sink.c */

/* Count by an XDP program, where descriptors of its maps are given. */
void sink_start(const int *xdp);

void sink_open(struct sink *sink, const struct load *load);
void sink_close(struct sink *sink);

/* Packets and bytes received so far. */
uint64_t sink_count(const struct sink *sink, uint64_t *bytes);

/* Receive until `stop`: the thread. */
void *sink_run(void *sink);

/* Wait for the last packets. */
void sink_drain(const struct sink *sink);

#endif
