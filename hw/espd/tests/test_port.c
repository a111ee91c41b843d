/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a port goes from one method to the next and back, and how its batch grows. Methods are played here:
 * gw_io_find() is another one, by the linker (--wrap). Time is what the test says.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "io_loss.h"
#include "tap.h"
#include "thread.h"

#define SECOND_NS 1000000000ull
#define SHORT     100u
#define LONG      1300u

/* What the world does to a method's packets. */
enum fate {
	ARRIVE,
	TOO_LONG, /* those of LONG bytes are lost */
	LOST,
};

static struct played {
	enum fate fate;
	int open_error;
	int check_error;
	unsigned int open; /* objects */
	unsigned int opened;
} played[GW_IO_COUNT];

struct played_io {
	struct gw_io io;
	struct gw_io_counters counters;
	struct gw_io_loss loss;
	bool receives;
};

const struct gw_io_method *__wrap_gw_io_find(unsigned int kind);

static struct played *role(const struct gw_io *io)
{
	return &played[io->method->kind];
}

static int play_open(const struct gw_io_options *options, struct gw_io **io, char *why,
		     unsigned int kind)
{
	struct played_io *made;

	played[kind].opened++;
	if (played[kind].open_error) {
		snprintf(why, GW_IO_WHY_BYTES, "%s does not open", gw_io_find(kind)->name);
		return played[kind].open_error;
	}
	made = calloc(1, sizeof(*made));
	made->io = (struct gw_io){.method = gw_io_find(kind), .pool = options->pool};
	made->receives = options->receives;
	played[kind].open++;
	*io = &made->io;
	return 0;
}

static int play_open_copy(const struct gw_io_options *options, struct gw_io **io, char *why)
{
	return play_open(options, io, why, GW_IO_XDP_COPY);
}

static int play_open_live(const struct gw_io_options *options, struct gw_io **io, char *why)
{
	return play_open(options, io, why, GW_IO_LIVE_FRAME);
}

static int play_open_packet(const struct gw_io_options *options, struct gw_io **io, char *why)
{
	return play_open(options, io, why, GW_IO_PACKET);
}

static unsigned int play_receive(struct gw_io *io, struct gw_packet *packets, unsigned int max)
{
	(void)io;
	(void)packets;
	(void)max;
	return 0;
}

static unsigned int play_send(struct gw_io *io, struct gw_packet *packets, unsigned int count)
{
	struct played_io *played_io = (struct played_io *)io;
	enum fate fate = role(io)->fate;

	for (unsigned int i = 0; i < count; i++) {
		played_io->counters.sent_packets++;
		played_io->counters.send_lost +=
			fate == LOST || (fate == TOO_LONG && packets[i].length == LONG);
		gw_pool_return(io->pool, gw_frame_of(io->pool, packets[i].data));
	}
	return count;
}

static void play_flush(struct gw_io *io)
{
	(void)io;
}

static void play_counters(struct gw_io *io, struct gw_io_counters *counters)
{
	*counters = ((struct played_io *)io)->counters;
}

static int play_check(struct gw_io *io, uint64_t now_ns, char *why)
{
	struct played_io *played_io = (struct played_io *)io;

	(void)now_ns;
	if (role(io)->check_error) {
		snprintf(why, GW_IO_WHY_BYTES, "%s is broken", io->method->name);
		return role(io)->check_error;
	}
	return gw_loss_judge(&played_io->loss, "eth0", played_io->counters.sent_packets,
			     played_io->counters.send_lost, why);
}

static void play_close(struct gw_io *io)
{
	role(io)->open--;
	free(io);
}

#define PLAYED \
	.layer = GW_LAYER_ETHERNET, .send = play_send, .flush = play_flush, \
	.counters = play_counters, .check = play_check, .close = play_close

const struct gw_io_method *__wrap_gw_io_find(unsigned int kind)
{
	static const struct gw_io_method copy = {.name = "copy",
						 .kind = GW_IO_XDP_COPY,
						 .open = play_open_copy,
						 .receive = play_receive,
						 PLAYED},
					 live = {.name = "live",
						 .kind = GW_IO_LIVE_FRAME,
						 .open = play_open_live,
						 PLAYED},
					 packet = {.name = "packet",
						   .kind = GW_IO_PACKET,
						   .open = play_open_packet,
						   .receive = play_receive,
						   PLAYED};
	const struct gw_io_method *const methods[GW_IO_COUNT] = {
		[GW_IO_XDP_COPY] = &copy,
		[GW_IO_LIVE_FRAME] = &live,
		[GW_IO_PACKET] = &packet,
	};

	return kind < GW_IO_COUNT ? methods[kind] : NULL;
}

/* --- a port, and a second of its life */

static struct gw_daemon daemon_of_it;
static struct gw_thread *thread;
static struct gw_port *port;

/* Begin: it receives by copy, and sends by these. */
static void begin(unsigned int first, unsigned int second, unsigned int third)
{
	struct gw_control_device device = {
		.device = 1,
		.ifindex = 1,
		.name = "eth0",
		.queues = 1,
		.receive_methods = {GW_IO_XDP_COPY},
		.send_methods = {(uint8_t)first, (uint8_t)second, (uint8_t)third},
	};
	char why[GW_IO_WHY_BYTES];
	int error;

	memset(played, 0, sizeof(played));
	daemon_of_it.event_fd = eventfd(0, EFD_NONBLOCK);
	thread = aligned_alloc(64, (sizeof(*thread) + 63) / 64 * 64);
	memset(thread, 0, sizeof(*thread));
	thread->daemon = &daemon_of_it;
	thread->live_fds[0] = -1;
	thread->now_ns = 1000 * SECOND_NS;
	gw_pool_init(&thread->pool, 64, 2048);
	gw_ring_init(&thread->events, 64, sizeof(union gw_any_event));
	port = gw_port_open(thread, &device, 0, true, -1, why, &error);
	tap_check(port && port->receiver, "a port opens");
}

static void end(void)
{
	gw_port_close(thread, port);
	tap_check(thread->pool.free_count == 64, "all frames come back");
	for (unsigned int kind = 0; kind < GW_IO_COUNT; kind++)
		tap_check(played[kind].open == 0, "and everything is closed");
	gw_pool_clear(&thread->pool);
	gw_ring_clear(&thread->events);
	close(daemon_of_it.event_fd);
	free(thread);
}

static void send(unsigned int count, uint32_t length)
{
	for (unsigned int i = 0; i < count; i++) {
		uint32_t frame = gw_pool_take(&thread->pool);
		struct gw_packet packet;

		gw_frame_describe(&thread->pool, frame, GW_FRAME_DATA, length, &packet);
		gw_port_send(thread, port, &packet);
		gw_port_flush(thread, port);
	}
}

static void pass(uint64_t seconds)
{
	for (; seconds; seconds--) {
		thread->now_ns += SECOND_NS;
		gw_port_check(thread, port);
	}
}

static bool sends_by(unsigned int kind)
{
	return port->sender && port->sender->method->kind == kind;
}

static bool receives(void)
{
	return port->receiver && ((struct played_io *)port->receiver)->receives &&
	       played[GW_IO_XDP_COPY].opened == 1;
}

/* The next event is of this change; it is taken. */
static bool tells(unsigned int old_method, unsigned int new_method)
{
	const union gw_any_event *event = gw_ring_readable(&thread->events);
	bool is_it = event && event->method.old_method == old_method &&
		     event->method.new_method == new_method && event->method.sends;

	if (event)
		gw_ring_take(&thread->events);
	return is_it;
}

static bool tells_nothing(void)
{
	return !gw_ring_readable(&thread->events);
}

/* --- what is tested */

static void test_long_packets_prove_nothing(void)
{
	begin(GW_IO_XDP_COPY, GW_IO_PACKET, 0);
	played[GW_IO_XDP_COPY].fate = TOO_LONG;
	send(1, LONG);
	pass(1);
	tap_check(sends_by(GW_IO_XDP_COPY), "one packet that is lost is no reason");
	for (int i = 0; i < 5; i++) {
		send(40, LONG);
		pass(1);
	}
	tap_check(sends_by(GW_IO_XDP_COPY) && tells_nothing(),
		  "nor are all, when a short frame arrives");
	tap_check(thread->counts.drops[GW_DROP_SEND_FAILED] == 201, "they are counted");
	end();
}

static void test_only_sending_moves_on(void)
{
	struct gw_io *receiver;

	begin(GW_IO_XDP_COPY, GW_IO_PACKET, 0);
	receiver = port->receiver;
	tap_check(port->sender == receiver, "one object receives and sends");
	played[GW_IO_XDP_COPY].fate = LOST;
	send(GW_LOSS_PACKETS - 1, SHORT);
	pass(10);
	tap_check(sends_by(GW_IO_XDP_COPY), "fewer packets are not yet enough");
	send(1, SHORT);
	pass(1);
	tap_check(sends_by(GW_IO_PACKET) && tells(GW_IO_XDP_COPY, GW_IO_PACKET),
		  "when nothing arrives the next method sends");
	tap_check(port->receiver == receiver && receives(), "what received goes on to receive");
	tap_check(strstr(port->reason, "copy: eth0 dropped all of the 16 packets") != NULL,
		  "the reason is kept");
	send(100, SHORT);
	pass(1);
	tap_check(thread->counts.drops[GW_DROP_SEND_FAILED] >= GW_LOSS_PACKETS &&
			  thread->counts.drops[GW_DROP_SEND_FAILED] <= GW_LOSS_PACKETS + 3,
		  "of what was lost each is counted, and probes");
	end();
}

static void test_overload_is_no_reason(void)
{
	begin(GW_IO_XDP_COPY, GW_IO_PACKET, 0);
	for (int i = 0; i < 10; i++) {
		played[GW_IO_XDP_COPY].fate = LOST;
		send(30, SHORT);
		played[GW_IO_XDP_COPY].fate = ARRIVE;
		send(1, SHORT);
		pass(1);
	}
	tap_check(sends_by(GW_IO_XDP_COPY) && tells_nothing(), "what loses most still sends");
	end();
}

static void test_the_last_method_stays(void)
{
	begin(GW_IO_LIVE_FRAME, 0, 0);
	played[GW_IO_LIVE_FRAME].check_error = -EOPNOTSUPP;
	played[GW_IO_LIVE_FRAME].fate = LOST;
	send(5, SHORT);
	pass(1);
	tap_check(sends_by(GW_IO_LIVE_FRAME) && tells(GW_IO_LIVE_FRAME, GW_IO_LIVE_FRAME),
		  "where there is no other method it stays, and says so");
	send(5, SHORT);
	pass(200);
	tap_check(sends_by(GW_IO_LIVE_FRAME) && receives() && tells_nothing(), "once");
	tap_check(thread->counts.drops[GW_DROP_SEND_FAILED] == 10, "what it loses is counted");
	tap_check(port->reason[0] != 0, "and the reason is kept");
	played[GW_IO_LIVE_FRAME].check_error = 0;
	pass(60);
	tap_check(port->reason[0] == 0, "until it sends again");
	played[GW_IO_LIVE_FRAME].check_error = -EOPNOTSUPP;
	pass(1);
	tap_check(tells(GW_IO_LIVE_FRAME, GW_IO_LIVE_FRAME), "the next time it says so again");
	end();
}

static void test_what_does_not_open_is_no_next_method(void)
{
	begin(GW_IO_LIVE_FRAME, GW_IO_PACKET, 0);
	played[GW_IO_LIVE_FRAME].check_error = -EOPNOTSUPP;
	played[GW_IO_PACKET].open_error = -ENOBUFS;
	pass(30);
	tap_check(sends_by(GW_IO_LIVE_FRAME) && played[GW_IO_PACKET].opened == 1,
		  "what does not open is not tried each second");
	played[GW_IO_PACKET].open_error = 0;
	pass(60);
	tap_check(sends_by(GW_IO_PACKET), "but again");
	end();
}

static void test_down_is_no_reason_and_gone_is_the_end(void)
{
	begin(GW_IO_XDP_COPY, GW_IO_PACKET, 0);
	played[GW_IO_XDP_COPY].check_error = -ENETDOWN;
	pass(100);
	tap_check(sends_by(GW_IO_XDP_COPY) && tells_nothing(), "a device that is down waits");
	played[GW_IO_XDP_COPY].check_error = -ENODEV;
	pass(1);
	tap_check(!port->sender && !port->receiver, "of one that is gone nothing is left");
	end();
}

static void test_back_to_the_better_method(void)
{
	begin(GW_IO_LIVE_FRAME, GW_IO_XDP_COPY, GW_IO_PACKET);
	played[GW_IO_LIVE_FRAME].check_error = -EOPNOTSUPP;
	played[GW_IO_LIVE_FRAME].open_error = -EOPNOTSUPP;
	pass(1);
	tap_check(sends_by(GW_IO_XDP_COPY) && port->sender == port->receiver &&
			  tells(GW_IO_LIVE_FRAME, GW_IO_XDP_COPY),
		  "what receives is the next to send");
	played[GW_IO_XDP_COPY].fate = LOST;
	send(20, SHORT);
	pass(1);
	tap_check(sends_by(GW_IO_PACKET) && tells(GW_IO_XDP_COPY, GW_IO_PACKET) && receives(),
		  "then another");
	pass(58);
	tap_check(played[GW_IO_LIVE_FRAME].opened == 1, "for a minute nothing is tried");
	pass(1);
	tap_check(played[GW_IO_LIVE_FRAME].opened == 2, "then the best method is");
	pass(119);
	tap_check(played[GW_IO_LIVE_FRAME].opened == 2, "after a failure not for two minutes");
	played[GW_IO_LIVE_FRAME].open_error = played[GW_IO_LIVE_FRAME].check_error = 0;
	pass(1);
	tap_check(sends_by(GW_IO_LIVE_FRAME) && tells(GW_IO_PACKET, GW_IO_LIVE_FRAME) &&
			  port->reason[0] == 0,
		  "where it opens again it sends again, and there is nothing more to say");
	played[GW_IO_LIVE_FRAME].check_error = -EOPNOTSUPP;
	pass(2);
	tap_check(sends_by(GW_IO_XDP_COPY) && tells(GW_IO_LIVE_FRAME, GW_IO_XDP_COPY),
		  "and when it does not last");
	pass(200);
	tap_check(played[GW_IO_LIVE_FRAME].opened == 3, "it is tried later still");
	pass(100);
	tap_check(played[GW_IO_LIVE_FRAME].opened == 4, "but is tried");
	end();
}

static void test_back_to_what_receives(void)
{
	begin(GW_IO_XDP_COPY, GW_IO_PACKET, 0);
	played[GW_IO_XDP_COPY].fate = LOST;
	send(20, SHORT);
	pass(1);
	tap_check(sends_by(GW_IO_PACKET) && tells(GW_IO_XDP_COPY, GW_IO_PACKET), "it fell");
	pass(100);
	tap_check(sends_by(GW_IO_PACKET), "while probe frames are lost it stays where it is");
	played[GW_IO_XDP_COPY].fate = ARRIVE;
	pass(100);
	tap_check(port->sender == port->receiver && tells(GW_IO_PACKET, GW_IO_XDP_COPY) &&
			  receives(),
		  "when one arrives the object that receives sends again");
	end();
}

static void test_batches(void)
{
	static const struct {
		uint16_t batch;
		uint32_t count;
		uint16_t next;
		const char *name;
	} rows[] = {
		{64, 0, 64, "an idle queue: latency"},
		{64, 63, 64, "not full"},
		{64, 64, 128, "full: it grows"},
		{128, 128, 256, "still full"},
		{256, 256, 256, "as large as it gets"},
		{256, 64, 256, "a quarter is enough to stay"},
		{256, 63, 128, "nearly empty: it shrinks"},
		{128, 31, 64, "still so"},
		{64, 1, 64, "as small as it gets"},
		{200, 200, 256, "never past its ends"},
		{100, 1, 64, "on either side"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		tap_check(gw_port_next_batch(rows[i].batch, rows[i].count, 64, 256) == rows[i].next,
			  rows[i].name);
	tap_check(gw_port_next_batch(32, 32, 32, 32) == 32, "one size is one size");
}

int main(void)
{
	test_long_packets_prove_nothing();
	test_only_sending_moves_on();
	test_overload_is_no_reason();
	test_the_last_method_stays();
	test_what_does_not_open_is_no_next_method();
	test_down_is_no_reason_and_gone_is_the_end();
	test_back_to_the_better_method();
	test_back_to_what_receives();
	test_batches();
	return tap_end();
}
