/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The I/O methods of espd without espd: frames sent, received or forwarded untouched, in one thread.
 *
 *     io_bench send    --to DEVICE=KINDS ...          frames of our own, as fast as they are taken
 *     io_bench receive --from DEVICE=KINDS ...        counted and forgotten
 *     io_bench forward --from DEVICE=KINDS --to DEVICE=KINDS ...
 *
 * KINDS are numbers of enum gw_io_kind with commas between, the best first; the program takes the
 * first that works, and the next one when that is given up, as espd does.
 *
 *     --queue N             of both devices (0)
 *     --steering FD         XSKMAP of the receiving device
 *     --frames N            of the pool (4096)
 *     --frame-bytes N       of each (2048)
 *     --pool-map FD         gw_live_frames: the pool's memory
 *     --live-program FD, --live-burst FD
 *     --bytes N             of a frame that `send` makes (60)
 *     --burst N             packets of a round (64)
 *     --packets N           end after so many
 *     --seconds N           end after so long; without either, when standard input ends
 *
 * It prints a line of JSON when it is ready, one when a method is given up or a device goes down,
 * and one at its end with all it counted.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "io.h"
#include "io_probe.h"
#include "link_state.h"

#define MAX_BURST         1024u
#define MIN_BYTES         22u /* a link header and a number */
#define CHECK_INTERVAL_NS 100000000ull
#define IDLE_WAIT_MS      1

/* One direction: a device, the methods that are left for it, and what all of them counted. */
struct bench_side {
	struct gw_control_device device;
	struct gw_io_options options;
	uint8_t kinds[GW_MAX_METHODS + 1];
	unsigned int place; /* of the method in use */
	struct gw_io *io;
	bool is_down;
	struct gw_io_counters before; /* of methods that were given up */
};

struct bench {
	enum bench_mode {
		BENCH_SEND,
		BENCH_RECEIVE,
		BENCH_FORWARD
	} mode;
	struct bench_side from, to;
	struct gw_pool pool;
	struct gw_live live;
	int pool_map_fd, steering_fd;
	uint32_t queue, frames, frame_bytes, bytes, burst, packets, seconds;
	uint64_t number;  /* of the next frame of ours */
	uint64_t refused; /* received, and not taken by the method that sends */
};

static uint64_t bench_now_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void bench_end(const char *what, const char *why)
{
	printf("{\"error\": \"%s: %s\"}\n", what, why);
	exit(1);
}

/* --- devices ---------------------------------------------------------------------------------- */

/* Read "DEVICE=KIND,KIND"; the link address is asked of the kernel. */
static void bench_parse_side(struct bench_side *side, const char *text)
{
	const char *kinds = strchr(text, '=');
	struct ifreq request = {0};
	unsigned int count = 0;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (!kinds || kinds - text >= IFNAMSIZ)
		bench_end(text, "want DEVICE=KINDS");
	memcpy(side->device.name, text, (size_t)(kinds - text));
	side->device.ifindex = if_nametoindex(side->device.name);
	memcpy(request.ifr_name, side->device.name, sizeof(request.ifr_name));
	if (!side->device.ifindex || ioctl(fd, SIOCGIFHWADDR, &request))
		bench_end(text, strerror(errno));
	memcpy(side->device.mac, request.ifr_hwaddr.sa_data, 6);
	if (!ioctl(fd, SIOCGIFMTU, &request))
		side->device.mtu = (uint32_t)request.ifr_mtu;
	close(fd);
	side->device.queues = 1;
	side->device.flags = GW_DEVICE_CLEAR | GW_DEVICE_ALL_FRAMES;
	for (char *end = (char *)kinds; *end && count < GW_MAX_METHODS;)
		side->kinds[count++] = (uint8_t)strtoul(end + 1, &end, 10);
}

static const char *bench_method(const struct bench_side *side)
{
	return side->io ? side->io->method->name : "";
}

/* Choose among the methods from `place` on; `why` tells why not an earlier one. */
static int bench_open(struct bench_side *side, unsigned int place, char *why)
{
	int chosen = gw_io_choose(&side->options, side->kinds + place, GW_MAX_METHODS - place,
				  &side->io, why);

	if (chosen < 0)
		return chosen;
	side->place = place + (unsigned int)chosen;
	return 0;
}

static void bench_add(struct gw_io_counters *sum, const struct gw_io_counters *counters)
{
	sum->received_packets += counters->received_packets;
	sum->received_bytes += counters->received_bytes;
	sum->sent_packets += counters->sent_packets;
	sum->sent_bytes += counters->sent_bytes;
	sum->receive_lost += counters->receive_lost;
	sum->send_lost += counters->send_lost;
}

static void bench_close(struct bench_side *side)
{
	struct gw_io_counters counters;

	if (!side->io)
		return;
	side->io->method->counters(side->io, &counters);
	bench_add(&side->before, &counters);
	side->io->method->close(side->io);
	side->io = NULL;
}

/* Give a method up when it says so, and go on with the next; false when there is none. */
static bool bench_check(struct bench_side *side, uint64_t now_ns)
{
	char why[GW_IO_WHY_BYTES], next_why[GW_IO_WHY_BYTES] = "";
	const char *old;
	int error;

	if (!side->io)
		return true;
	error = gw_io_check(side->io, &side->device, now_ns, why);
	if (!error) {
		side->is_down = false;
		return true;
	}
	old = side->io->method->name;
	if (error == -ENETDOWN) {
		if (!side->is_down)
			printf("{\"down\": \"%s\", \"method\": \"%s\"}\n", why, old);
		fflush(stdout);
		side->is_down = true;
		return true;
	}
	bench_close(side);
	error = bench_open(side, side->place + 1, next_why);
	printf("{\"given_up\": \"%s\", \"why\": \"%s\", \"next\": \"%s\", \"next_why\": \"%s\"}\n",
	       old, why, bench_method(side), next_why);
	fflush(stdout);
	return !error;
}

/* --- packets ---------------------------------------------------------------------------------- */

/* Frames of ours: from the device to the device, numbered behind the link header. */
static unsigned int bench_make(struct bench *bench, struct gw_packet *packets, unsigned int count)
{
	unsigned int made = 0;

	while (made < count) {
		uint32_t frame = gw_pool_take(&bench->pool);
		struct gw_packet *packet = &packets[made];

		if (frame == GW_NO_FRAME)
			break;
		gw_frame_describe(&bench->pool, frame, GW_FRAME_DATA, bench->bytes, packet);
		memcpy(packet->data, bench->to.device.mac, 6);
		memcpy(packet->data + 6, bench->to.device.mac, 6);
		packet->data[12] = 0x88; /* the other type left to local experiments */
		packet->data[13] = 0xb6;
		memcpy(packet->data + 14, &bench->number, sizeof(bench->number));
		bench->number++;
		made++;
	}
	return made;
}

static void bench_forget(struct bench *bench, const struct gw_packet *packets, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		gw_pool_return(&bench->pool, gw_frame_of(&bench->pool, packets[i].data));
}

/* One round; returns how many packets it moved, at most `max`. */
static unsigned int bench_round(struct bench *bench, unsigned int max)
{
	struct gw_packet packets[MAX_BURST];
	unsigned int count, taken;

	if (bench->mode == BENCH_SEND)
		count = bench_make(bench, packets, max);
	else
		count = bench->from.io->method->receive(bench->from.io, packets, max);
	taken = count;
	if (bench->mode == BENCH_RECEIVE) {
		bench_forget(bench, packets, count);
	} else {
		taken = count ? bench->to.io->method->send(bench->to.io, packets, count) : 0;
		bench_forget(bench, packets + taken, count - taken);
		if (bench->mode == BENCH_SEND)
			bench->number -= count - taken; /* made again in the next round */
		else
			bench->refused += count - taken;
		if (bench->to.io->method->flush)
			bench->to.io->method->flush(bench->to.io);
	}
	if (bench->from.io && bench->from.io->method->flush)
		bench->from.io->method->flush(bench->from.io);
	return taken;
}

/* Sleep until a packet comes, a queue has room, or standard input ends; true for the latter. */
static bool bench_wait(const struct bench *bench)
{
	struct pollfd fds[16] = {{.fd = STDIN_FILENO, .events = POLLIN}};
	const struct bench_side *sides[] = {&bench->from, &bench->to};
	unsigned int count = bench->seconds ? 0 : 1;
	char byte;

	for (size_t i = 0; i < 2; i++)
		if (sides[i]->io && sides[i]->io->method->descriptors)
			count += sides[i]->io->method->descriptors(sides[i]->io, fds + count,
								   16 - count);
	poll(fds, count, IDLE_WAIT_MS);
	return !bench->seconds && fds[0].revents && read(STDIN_FILENO, &byte, 1) <= 0;
}

/* --- run -------------------------------------------------------------------------------------- */

static void bench_report(const struct bench *bench, uint64_t wall_ns, uint64_t cpu_ns)
{
	const struct gw_io_counters *from = &bench->from.before, *to = &bench->to.before;

	printf("{\"received\": %" PRIu64 ", \"receive_lost\": %" PRIu64 ", \"sent\": %" PRIu64
	       ", \"send_lost\": %" PRIu64 ", \"refused\": %" PRIu64 ", \"wall_ns\": %" PRIu64
	       ", \"cpu_ns\": %" PRIu64 ", \"frames_missing\": %u}\n",
	       from->received_packets, from->receive_lost, to->sent_packets, to->send_lost,
	       bench->refused, wall_ns, cpu_ns, bench->pool.frames - bench->pool.free_count);
}

static void bench_run(struct bench *bench)
{
	uint64_t start_ns = bench_now_ns(CLOCK_MONOTONIC), now_ns = start_ns;
	uint64_t cpu_ns = bench_now_ns(CLOCK_PROCESS_CPUTIME_ID);
	uint64_t check_ns = start_ns + CHECK_INTERVAL_NS, moved = 0;
	bool has_ended = false;

	for (unsigned int round = 0;; round++) {
		uint64_t left = bench->packets ? bench->packets - moved : UINT64_MAX;
		unsigned int count =
			bench_round(bench, left < bench->burst ? (unsigned int)left : bench->burst);

		moved += count;
		if (bench->packets && moved >= bench->packets)
			break;
		if (count && round % 16)
			continue;
		now_ns = bench_now_ns(CLOCK_MONOTONIC);
		if (bench->seconds && now_ns - start_ns >= bench->seconds * 1000000000ull)
			break;
		if (now_ns >= check_ns) {
			check_ns = now_ns + CHECK_INTERVAL_NS;
			if (!bench_check(&bench->from, now_ns) || !bench_check(&bench->to, now_ns))
				break;
		}
		/* What waits when standard input ends is still moved. */
		if (!count && has_ended)
			break;
		if ((!count || !bench->seconds) && !has_ended)
			has_ended = bench_wait(bench);
		if (has_ended && bench->mode == BENCH_SEND)
			break;
	}
	now_ns = bench_now_ns(CLOCK_MONOTONIC);
	cpu_ns = bench_now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_ns;
	bench_close(&bench->from);
	bench_close(&bench->to);
	bench_report(bench, now_ns - start_ns, cpu_ns);
}

static void bench_set_up(struct bench *bench)
{
	struct bench_side *sides[] = {&bench->from, &bench->to};
	char why[2][GW_IO_WHY_BYTES] = {"", ""};
	int error = bench->pool_map_fd < 0
			    ? gw_pool_init(&bench->pool, bench->frames, bench->frame_bytes)
			    : gw_pool_init_map(&bench->pool, bench->pool_map_fd, bench->frames,
					       bench->frame_bytes);

	if (error)
		bench_end("pool", strerror(-error));
	for (int i = 0; i < 2; i++) {
		if (!sides[i]->kinds[0])
			continue;
		sides[i]->options = (struct gw_io_options){
			.device = &sides[i]->device,
			.pool = &bench->pool,
			.queue = (uint16_t)bench->queue,
			.receives = i == 0,
			.sends = i == 1,
			.steering_fd = i == 0 ? bench->steering_fd : -1,
			.live = bench->live.program_fd >= 0 ? &bench->live : NULL,
		};
		if (bench_open(sides[i], 0, why[i]))
			bench_end(sides[i]->device.name, why[i]);
	}
	printf("{\"receives\": \"%s\", \"receives_why\": \"%s\", \"sends\": \"%s\", "
	       "\"sends_why\": \"%s\"}\n",
	       bench_method(&bench->from), why[0], bench_method(&bench->to), why[1]);
	fflush(stdout);
}

/* Read the options: what they are is told above. */
static void bench_read_options(struct bench *bench, int argc, char **argv)
{
	const struct {
		const char *name;
		uint32_t *number;
		struct bench_side *side;
	} options[] = {
		{"from", NULL, &bench->from},
		{"to", NULL, &bench->to},
		{"queue", &bench->queue, NULL},
		{"steering", (uint32_t *)&bench->steering_fd, NULL},
		{"frames", &bench->frames, NULL},
		{"frame-bytes", &bench->frame_bytes, NULL},
		{"pool-map", (uint32_t *)&bench->pool_map_fd, NULL},
		{"live-program", (uint32_t *)&bench->live.program_fd, NULL},
		{"live-burst", (uint32_t *)&bench->live.burst_fd, NULL},
		{"bytes", &bench->bytes, NULL},
		{"burst", &bench->burst, NULL},
		{"packets", &bench->packets, NULL},
		{"seconds", &bench->seconds, NULL},
	};
	enum {
		OPTIONS = sizeof(options) / sizeof(options[0])
	};
	struct option names[OPTIONS + 1] = {{0}};
	int option, place;

	for (int i = 0; i < OPTIONS; i++)
		names[i] = (struct option){.name = options[i].name, .has_arg = required_argument};
	while ((option = getopt_long(argc, argv, "", names, &place)) >= 0) {
		if (option)
			bench_end("io_bench", "see the beginning of io_bench.c for its options");
		if (options[place].side)
			bench_parse_side(options[place].side, optarg);
		else
			*options[place].number = (uint32_t)strtol(optarg, NULL, 10);
	}
}

static void bench_read_mode(struct bench *bench, const char *mode)
{
	static const char *const modes[] = {
		[BENCH_SEND] = "send",
		[BENCH_RECEIVE] = "receive",
		[BENCH_FORWARD] = "forward",
	};

	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (strcmp(mode, modes[i]))
			continue;
		bench->mode = (enum bench_mode)i;
		if ((i != BENCH_SEND && !bench->from.kinds[0]) ||
		    (i != BENCH_RECEIVE && !bench->to.kinds[0]))
			bench_end(mode, "a device is missing");
		return;
	}
	bench_end(mode, "want send, receive or forward");
}

int main(int argc, char **argv)
{
	struct bench bench = {
		.live = {-1, -1},
		.pool_map_fd = -1,
		.steering_fd = -1,
		.frames = 4096,
		.frame_bytes = 2048,
		.bytes = 60,
		.burst = 64,
	};

	bench_read_options(&bench, argc, argv);
	bench_read_mode(&bench, optind == argc - 1 ? argv[optind] : "");
	if (!bench.burst || bench.burst > MAX_BURST || bench.bytes < MIN_BYTES ||
	    bench.bytes + GW_FRAME_DATA > bench.frame_bytes)
		bench_end("io_bench", "the burst or the frame has an impossible size");
	gw_link_keep_counters();
	bench_set_up(&bench);
	bench_run(&bench);
	gw_pool_clear(&bench.pool);
	return 0;
}
