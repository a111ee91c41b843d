/* SPDX-License-Identifier: Apache-2.0 */
#include "port.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io_probe.h"
#include "thread.h"

#define SECOND_NS         1000000000ull
#define CHECK_INTERVAL_NS SECOND_NS
/* Until a method that was given up is tried again: doubled each time, as long as it does not last. */
#define RETRY_FIRST_S 60u
#define RETRY_MOST_S  3600u

/* --- choosing methods */

struct gw_io_options gw_port_options(struct gw_thread *thread, const struct gw_port *port)
{
	return (struct gw_io_options){
		.device = &port->device,
		.pool = &thread->pool,
		.queue = port->queue,
		.steering_fd = port->steering_fd,
		.agent = &thread->daemon->has_agent,
		.live = thread->live_fds[0] < 0 ? NULL : &thread->live,
		.mark = thread->daemon->config.mark,
		.clear_mark = thread->daemon->config.clear_mark,
	};
}

/* Say of a method that it was not taken, behind what is said already; the same only once. */
static void note_reason(struct gw_port *port, const char *name, const char *why)
{
	size_t used = strlen(port->reason);

	if (strstr(port->reason, why))
		return;
	snprintf(port->reason + used, sizeof(port->reason) - used, "%s%s: %s", used ? "; " : "",
		 name, why);
}

static unsigned int kind_at(const uint8_t *methods, uint8_t at)
{
	return at < GW_MAX_METHODS ? methods[at] : GW_IO_UNSPECIFIED;
}

static bool has_kind(const uint8_t *methods, unsigned int kind)
{
	for (uint8_t at = 0; kind_at(methods, at); at++)
		if (methods[at] == kind)
			return true;
	return false;
}

static struct gw_io *open_method(struct gw_thread *thread, struct gw_port *port, unsigned int kind,
				 bool receives, int *error)
{
	const struct gw_io_method *method = gw_io_find(kind);
	struct gw_io_options options = gw_port_options(thread, port);
	char why[GW_IO_WHY_BYTES] = "";
	struct gw_io *io = NULL;

	*error = -EOPNOTSUPP;
	if (!method) {
		note_reason(port, "a method", "not in this build");
		return NULL;
	}
	options.receives = receives;
	options.sends = method->send && has_kind(port->device.send_methods, kind);
	if (receives && !method->receive) {
		note_reason(port, method->name, "it only sends");
		return NULL;
	}
	*error = method->open(&options, &io, why);
	if (*error == 0)
		return io;
	note_reason(port, method->name, why);
	return NULL;
}

static int open_receiver(struct gw_thread *thread, struct gw_port *port)
{
	const uint8_t *methods = port->device.receive_methods;
	int error = 0;

	for (; port->owns_queue && kind_at(methods, port->receive_at); port->receive_at++) {
		port->receiver = open_method(thread, port, methods[port->receive_at], true, &error);
		if (port->receiver)
			return 0;
		if (error == -ENETDOWN)
			return error; /* no method is to blame: this one again, when it is up */
	}
	return error;
}

static bool is_xdp(unsigned int kind)
{
	return kind == GW_IO_XDP_ZERO_COPY || kind == GW_IO_XDP_COPY;
}

static bool is_other_xdp(const struct gw_io *io, unsigned int kind)
{
	return io && is_xdp(io->method->kind) && io->method->kind != kind;
}

/* A queue has room for one AF_XDP socket: where there is one, none of the other kind can send. */
static bool has_no_room(const struct gw_port *port, unsigned int kind)
{
	return is_xdp(kind) &&
	       (is_other_xdp(port->receiver, kind) || is_other_xdp(port->sender, kind));
}

/* Find something to send by, at `send_at` or behind it; until then there is what there was. */
static int open_sender(struct gw_thread *thread, struct gw_port *port)
{
	const uint8_t *methods = port->device.send_methods;
	int error = 0;

	for (; kind_at(methods, port->send_at); port->send_at++) {
		unsigned int kind = methods[port->send_at];
		struct gw_io *io;

		if (has_no_room(port, kind))
			continue;
		/* What receives by this method can send by it. */
		if (port->receiver && port->receiver->method->kind == kind)
			io = port->receiver;
		else
			io = open_method(thread, port, kind, false, &error);
		if (io) {
			port->sender = io;
			return 0;
		}
		if (error == -ENETDOWN)
			return error;
	}
	return error;
}

/* --- life */

static void add_counters(struct gw_io *io, struct gw_io_counters *sum)
{
	struct gw_io_counters one = {0};

	io->method->counters(io, &one);
	sum->received_packets += one.received_packets;
	sum->received_bytes += one.received_bytes;
	sum->sent_packets += one.sent_packets;
	sum->sent_bytes += one.sent_bytes;
	sum->receive_lost += one.receive_lost;
	sum->send_lost += one.send_lost;
	sum->sent_bursts += one.sent_bursts;
	sum->received_supers += one.received_supers;
}

static void close_io(struct gw_port *port, struct gw_io *io)
{
	if (!io)
		return;
	add_counters(io, &port->closed);
	if (port->receiver == io)
		port->receiver = NULL;
	if (port->sender == io)
		port->sender = NULL;
	io->method->close(io);
}

struct gw_port *gw_port_open(struct gw_thread *thread, const struct gw_control_device *device,
			     uint16_t queue, bool owns_queue, int steering_fd, char *why,
			     int *error)
{
	struct gw_port *port = calloc(1, sizeof(*port));

	*error = -ENOMEM;
	if (!port) {
		if (steering_fd >= 0)
			close(steering_fd);
		return NULL;
	}
	port->device = *device;
	port->queue = queue;
	port->owns_queue = owns_queue;
	port->steering_fd = steering_fd;
	port->batch = thread->daemon->config.batch_low;
	port->next_check_ns = thread->now_ns + CHECK_INTERVAL_NS;
	*error = open_receiver(thread, port);
	if (*error == 0)
		*error = open_sender(thread, port);
	if (*error == 0)
		return port;
	memcpy(why, port->reason, sizeof(port->reason));
	gw_port_close(thread, port);
	return NULL;
}

void gw_port_close(struct gw_thread *thread, struct gw_port *port)
{
	gw_port_flush(thread, port);
	close_io(port, port->receiver);
	close_io(port, port->sender);
	if (port->steering_fd >= 0)
		close(port->steering_fd);
	free(port);
}

/* --- sending */

void gw_port_flush(struct gw_thread *thread, struct gw_port *port)
{
	uint32_t taken = 0;

	if (port->out_count && port->sender)
		taken = port->sender->method->send(port->sender, port->out, port->out_count);
	port->send_refused += port->out_count - taken;
	for (; taken < port->out_count; taken++)
		gw_thread_drop(thread, &port->out[taken], GW_DROP_SEND_FAILED);
	port->out_count = 0;
	if (port->sender && port->sender->method->flush)
		port->sender->method->flush(port->sender);
	if (port->receiver && port->receiver != port->sender && port->receiver->method->flush)
		port->receiver->method->flush(port->receiver);
}

void gw_port_send(struct gw_thread *thread, struct gw_port *port, const struct gw_packet *packet)
{
	if (!port || !port->sender) {
		gw_thread_drop(thread, packet, GW_DROP_SEND_FAILED);
		return;
	}
	if (port->out_count == GW_PORT_BATCH)
		gw_port_flush(thread, port);
	port->out[port->out_count++] = *packet;
}

/* --- watching */

void gw_port_counters(struct gw_port *port, struct gw_io_counters *counters)
{
	*counters = port->closed;
	if (port->receiver)
		add_counters(port->receiver, counters);
	if (port->sender && port->sender != port->receiver)
		add_counters(port->sender, counters);
}

static void tell_method(struct gw_thread *thread, const struct gw_port *port, uint8_t old_method,
			bool sends, const char *why)
{
	const struct gw_io *now = sends ? port->sender : port->receiver;
	union gw_any_event event = {
		.method =
			{
				.device = port->device.device,
				.queue = port->queue,
				.old_method = old_method,
				.new_method = now ? (uint8_t)now->method->kind : 0,
				.sends = sends,
			},
	};

	snprintf(event.method.reason, sizeof(event.method.reason), "%s", why);
	gw_thread_tell(thread, &event, GW_MESSAGE_EVENT_METHOD, sizeof(event.method));
}

/* The device is gone, and whatever was opened for it. */
static void lose(struct gw_thread *thread, struct gw_port *port, struct gw_io *io, const char *why)
{
	uint8_t kind = (uint8_t)io->method->kind;
	bool received = port->receiver == io, sent = port->sender == io;

	note_reason(port, io->method->name, why);
	close_io(port, io);
	if (received)
		tell_method(thread, port, kind, false, why);
	if (sent)
		tell_method(thread, port, kind, true, why);
}

/* Try again after twice the time that was waited for last. */
static void retry_later(struct gw_thread *thread, struct gw_port *port)
{
	port->retry_s = port->retry_s < RETRY_MOST_S / 2 ? 2 * port->retry_s : RETRY_MOST_S;
	port->retry_ns = thread->now_ns + port->retry_s * SECOND_NS;
}

/* Remember what was given up, and when to try it again; of several it is the best, the first. */
static void note_fall(struct gw_thread *thread, struct gw_port *port, uint8_t place)
{
	if (port->fell_from)
		return;
	port->fell_from = (uint8_t)(place + 1);
	/* It has lasted longer than the wait for it: begin anew. */
	if (thread->now_ns - port->retry_ns > port->retry_s * SECOND_NS)
		port->retry_s = RETRY_FIRST_S / 2;
	retry_later(thread, port);
}

/* Send by the next method that can be had, or stay. The receiver is what it was. */
static void demote(struct gw_thread *thread, struct gw_port *port, const char *why)
{
	struct gw_io *old = port->sender;
	uint8_t kind = (uint8_t)old->method->kind, place = port->send_at;
	bool stays = port->stay_ns != 0;

	if (!port->fell_from && !stays)
		port->reason_bytes = (uint8_t)strlen(port->reason);
	if (!port->fell_from)
		port->reason[port->reason_bytes] = 0;
	note_reason(port, old->method->name, why);
	port->send_at++;
	if (open_sender(thread, port) == 0 && port->sender != old) {
		note_fall(thread, port, place);
		if (old != port->receiver)
			close_io(port, old);
		tell_method(thread, port, kind, true, why);
		return;
	}
	port->send_at = place;
	port->stay_ns = thread->now_ns + RETRY_FIRST_S * SECOND_NS;
	if (!stays)
		tell_method(thread, port, kind, true, why);
}

/* The method that stayed sends again. */
static void end_stay(struct gw_port *port)
{
	port->stay_ns = 0;
	if (!port->fell_from)
		port->reason[port->reason_bytes] = 0;
}

/* Send by the best method that was given up if it carries a probe frame again. */
static void try_back(struct gw_thread *thread, struct gw_port *port)
{
	struct gw_io *old = port->sender, *io = NULL;
	unsigned int kind = port->device.send_methods[port->fell_from - 1];
	char why[GW_IO_WHY_BYTES];
	int error;

	if (port->receiver && port->receiver->method->kind == kind)
		io = gw_probe_insist(port->receiver, &port->device, why) ? NULL : port->receiver;
	else if (!has_no_room(port, kind))
		io = open_method(thread, port, kind, false, &error);
	if (!io) {
		retry_later(thread, port);
		return;
	}
	port->sender = io;
	port->send_at = port->fell_from - 1;
	port->fell_from = 0;
	port->stay_ns = 0;
	port->retry_ns = thread->now_ns;
	port->reason[port->reason_bytes] = 0;
	kind = old->method->kind;
	if (old != port->receiver)
		close_io(port, old);
	tell_method(thread, port, (uint8_t)kind, true, "a probe frame arrives again");
}

/* A device that is down goes on with its methods when it is up again. */
static void check_sender(struct gw_thread *thread, struct gw_port *port)
{
	struct gw_io *io = port->sender;
	char why[GW_IO_WHY_BYTES] = "";
	bool may_go = thread->now_ns >= port->stay_ns;
	int error;

	if (may_go)
		error = gw_io_check(io, &port->device, thread->now_ns, why);
	else
		error = io->method->check ? io->method->check(io, thread->now_ns, why) : 0;
	if (error == -ENODEV)
		lose(thread, port, io, why);
	else if (error && error != -ENETDOWN && may_go)
		demote(thread, port, why);
	if (error)
		return;
	if (may_go && port->stay_ns)
		end_stay(port);
	if (port->fell_from && thread->now_ns >= port->retry_ns)
		try_back(thread, port);
}

/* Whether it could send as well is nothing to a port that sends by another. */
static void check_receiver(struct gw_thread *thread, struct gw_port *port)
{
	struct gw_io *io = port->receiver;
	char why[GW_IO_WHY_BYTES] = "";

	if (io->method->check && io->method->check(io, thread->now_ns, why) == -ENODEV)
		lose(thread, port, io, why);
}

void gw_port_check(struct gw_thread *thread, struct gw_port *port)
{
	struct gw_io_counters now;

	if (thread->now_ns < port->next_check_ns)
		return;
	port->next_check_ns = thread->now_ns + CHECK_INTERVAL_NS;
	gw_port_counters(port, &now);
	/* No engine took what was lost before us. */
	thread->counts.drops[GW_DROP_NO_ENGINE] += now.receive_lost - port->told.receive_lost;
	thread->counts.drops[GW_DROP_SEND_FAILED] += now.send_lost - port->told.send_lost;
	port->told = now;
	if (port->receiver && port->receiver != port->sender)
		check_receiver(thread, port);
	if (port->sender)
		check_sender(thread, port);
}
