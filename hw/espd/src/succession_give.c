/* SPDX-License-Identifier: Apache-2.0 */
/* The side of a hand-over that gives everything away, or carries on; see succession.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "succession.h"

/* The new one makes workers and expands keys meanwhile; packets go on. */
#define PREPARE_MS 5000
/* Nobody carries packets meanwhile. */
#define READY_MS 1000
/* Rounds after which nothing is at hand any more, unless a pool has run dry. */
#define DRAIN_ROUNDS 1000

struct giving {
	struct gw_control *control;
	struct gw_succession talk;
	struct gw_parking parking[GW_MAX_WORKERS];
	uint8_t *lent; /* of one port: a byte for each frame */
	struct gw_succession_end end;
	union {
		struct gw_succession_message header;
		uint8_t bytes[sizeof(struct gw_succession_message) + GW_MESSAGE_BYTES];
	} message;
	struct gw_control_sa sa;
};

/* --- what does not change with every packet */

static bool give_message(struct giving *giving, const void *message, size_t bytes)
{
	struct gw_succession_message *record = &giving->message.header;

	record->header = (struct gw_succession_header){
		.kind = GW_SUCCESSION_MESSAGE,
		.bytes = (uint32_t)(sizeof(*record) + bytes),
	};
	memcpy(record + 1, message, bytes);
	return gw_succession_put(&giving->talk, record, NULL, 0);
}

static bool give_table(struct giving *giving, const struct gw_table *table, uint16_t type,
		       size_t bytes)
{
	for (uint32_t i = 0; i < table->count; i++) {
		struct gw_control_header *header = table->items[i];

		header->type = type;
		if (!give_message(giving, header, bytes))
			return false;
	}
	return true;
}

static bool give_pools(struct giving *giving)
{
	const struct gw_daemon *daemon = &giving->control->daemon;

	for (uint32_t i = 0; i < daemon->thread_count; i++) {
		const struct gw_thread *thread = daemon->threads[i];
		struct gw_succession_pool record = {
			.header = {.kind = GW_SUCCESSION_POOL, .bytes = sizeof(record)},
			.worker = i,
			.is_live = thread->pool.is_map,
		};
		const int *fds = record.is_live ? thread->live_fds : &thread->pool.fd;

		if (!gw_succession_put(&giving->talk, &record, fds,
				       record.is_live ? GW_LIVE_DESCRIPTORS : 1))
			return false;
	}
	return true;
}

static uint64_t cookie_of(const struct gw_control *control, const struct gw_selector_set *selectors)
{
	for (uint32_t i = 0; i < control->sas.count; i++) {
		const struct gw_sa_entry *sa = control->sas.items[i];

		if (&sa->selectors == selectors)
			return sa->record.cookie;
	}
	return 0;
}

static bool give_tunnels(struct giving *giving)
{
	const struct gw_control *control = giving->control;
	const struct gw_daemon *daemon = &control->daemon;

	for (uint32_t tunnel = 1; tunnel <= daemon->config.tunnels; tunnel++) {
		const struct gw_tunnel_sas *sas = atomic_load(&daemon->tunnels[tunnel]);
		struct gw_control_tunnel message = {
			.header = {.version = GW_CONTROL_VERSION,
				   .type = GW_MESSAGE_TUNNEL_SET,
				   .bytes = sizeof(message)},
			.tunnel = tunnel,
		};

		if (!sas || sas->count == 0)
			continue;
		for (; message.count < sas->count; message.count++)
			message.cookies[message.count] =
				cookie_of(control, sas->sas[message.count].selectors);
		if (!give_message(giving, &message, sizeof(message)))
			return false;
	}
	return true;
}

static bool give_sas(struct giving *giving)
{
	const struct gw_control *control = giving->control;
	bool is_given = true;

	for (uint32_t i = 0; i < control->sas.count && is_given; i++) {
		gw_sa_describe(control->sas.items[i], &giving->sa);
		is_given = give_message(giving, &giving->sa, sizeof(giving->sa));
	}
	return is_given;
}

static bool give_plain(struct giving *giving, uint16_t type)
{
	struct gw_control_plain message = {
		.header = {.version = GW_CONTROL_VERSION, .type = type, .bytes = sizeof(message)},
	};

	return give_message(giving, &message, sizeof(message));
}

static bool give_configuration(struct giving *giving)
{
	struct gw_control *control = giving->control;

	if (control->daemon.thread_count == 0)
		return true;
	if (!give_message(giving, &control->daemon.config, sizeof(control->daemon.config)))
		return false;
	for (uint32_t device = 1; device <= GW_MAX_DEVICES; device++)
		if (control->devices[device].device &&
		    !give_message(giving, &control->devices[device],
				  sizeof(control->devices[device])))
			return false;
	return give_sas(giving) &&
	       give_table(giving, &control->policies.committed, GW_MESSAGE_POLICY_SET,
			  sizeof(struct gw_control_policy)) &&
	       give_table(giving, &control->routes.committed, GW_MESSAGE_ROUTE_SET,
			  sizeof(struct gw_control_route)) &&
	       give_table(giving, &control->neighbours.committed, GW_MESSAGE_NEIGHBOUR_SET,
			  sizeof(struct gw_control_neighbour)) &&
	       give_tunnels(giving) && give_plain(giving, GW_MESSAGE_COMMIT);
}

static bool prepare(struct giving *giving, int listener)
{
	struct gw_control *control = giving->control;
	struct gw_succession_begin begin = {
		.header = {.kind = GW_SUCCESSION_BEGIN, .bytes = sizeof(begin)},
		.started_ns = control->started_ns,
		.pools = control->daemon.thread_count,
	};

	memcpy(begin.life, control->life, sizeof(begin.life));
	return gw_succession_put(&giving->talk, &begin, &listener, 1) && give_pools(giving) &&
	       give_configuration(giving) &&
	       gw_succession_expect(&giving->talk, GW_SUCCESSION_PREPARED,
				    sizeof(struct gw_succession_plain), PREPARE_MS);
}

/* --- what does: the threads stand still */

static void save_io(const struct gw_io *io, struct gw_io_saved *saved, uint8_t *lent)
{
	memset(saved, 0, sizeof(*saved));
	for (int i = 0; i < GW_IO_SAVED_DESCRIPTORS; i++)
		saved->fds[i] = -1;
	saved->lent = lent;
	if (io)
		io->method->save(io, saved);
}

static bool give_port(struct giving *giving, const struct gw_thread *thread,
		      const struct gw_port *port)
{
	const bool is_same = port->sender == port->receiver && port->sender;
	struct gw_succession_port *record = (void *)giving->talk.record;
	uint8_t *bits = (uint8_t *)(record + 1);
	uint32_t frames = thread->pool.frames;
	struct gw_io_saved receiver, sender;
	int fds[1 + 2 * GW_IO_SAVED_DESCRIPTORS];

	memset(giving->lent, 0, frames);
	save_io(port->receiver, &receiver, giving->lent);
	save_io(is_same ? NULL : port->sender, &sender, giving->lent);
	*record = (struct gw_succession_port){
		.header = {.kind = GW_SUCCESSION_PORT,
			   .bytes = (uint32_t)sizeof(*record) + (frames + 7) / 8},
		.device = port->device.device,
		.worker = thread->number,
		.queue = port->queue,
		.batch = port->batch,
		.receive_at = port->receive_at,
		.send_at = port->send_at,
		.owns_queue = port->owns_queue,
		.receiver_kind = port->receiver ? (uint8_t)port->receiver->method->kind : 0,
		.sender_kind = port->sender ? (uint8_t)port->sender->method->kind : 0,
		.is_same = is_same,
		.fell_from = port->fell_from,
		.reason_bytes = port->reason_bytes,
		.retry_s = port->retry_s,
		.retry_ns = port->retry_ns,
		.send_refused = port->send_refused,
		.closed = port->closed,
		.told = port->told,
		.receiver_bytes = receiver.bytes,
		.sender_bytes = sender.bytes,
	};
	memcpy(record->reason, port->reason, sizeof(record->reason));
	memcpy(record->receiver, receiver.data, sizeof(record->receiver));
	memcpy(record->sender, sender.data, sizeof(record->sender));
	memset(bits, 0, (frames + 7) / 8);
	for (uint32_t frame = 0; frame < frames; frame++)
		bits[frame / 8] |= (uint8_t)((giving->lent[frame] != 0) << frame % 8);
	fds[0] = port->steering_fd;
	memcpy(fds + 1, receiver.fds, sizeof(receiver.fds));
	memcpy(fds + 1 + GW_IO_SAVED_DESCRIPTORS, sender.fds, sizeof(sender.fds));
	giving->end.ports++;
	return gw_succession_put(&giving->talk, record, fds, sizeof(fds) / sizeof(fds[0]));
}

static bool give_held(struct giving *giving, const struct gw_thread *thread)
{
	for (uint32_t i = 0; i < thread->hold.count; i++) {
		const struct gw_held *held = &thread->hold.packets[i];
		struct gw_succession_held record = {
			.header = {.kind = GW_SUCCESSION_HELD, .bytes = sizeof(record)},
			.until_ns = held->until_ns,
			.offset = (uint64_t)(held->packet.data - thread->pool.memory),
			.worker = thread->number,
			.policy = held->policy,
			.length = held->packet.length,
			.device = held->packet.reserved,
		};

		giving->end.held++;
		if (!gw_succession_put(&giving->talk, &record, NULL, 0))
			return false;
	}
	return true;
}

/* Events stay in their ring: should this come to nothing, the agent hears of them from here. */
static bool give_events(struct giving *giving, const struct gw_thread *thread)
{
	const struct gw_ring *ring = &thread->events;
	uint32_t tail = atomic_load(&ring->tail), head = atomic_load(&ring->head);

	for (; tail != head; tail++) {
		struct gw_succession_event record = {
			.header = {.kind = GW_SUCCESSION_EVENT, .bytes = sizeof(record)},
			.worker = thread->number,
		};

		memcpy(&record.event,
		       ring->memory + (size_t)(tail & (ring->slots - 1)) * ring->slot_bytes,
		       sizeof(record.event));
		if (!gw_succession_put(&giving->talk, &record, NULL, 0))
			return false;
	}
	return true;
}

static bool give_thread(struct giving *giving, const struct gw_thread *thread)
{
	struct gw_succession_worker record = {
		.header = {.kind = GW_SUCCESSION_WORKER, .bytes = sizeof(record)},
		.worker = thread->number,
		.counts = thread->counts,
	};
	uint64_t drops[GW_DROP_REASON_COUNT];

	gw_worker_drops(thread->engine, drops);
	for (int i = 0; i < GW_DROP_REASON_COUNT; i++)
		record.counts.drops[i] += drops[i];
	if (!gw_succession_put(&giving->talk, &record, NULL, 0))
		return false;
	for (uint32_t i = 0; i < thread->port_count; i++)
		if (!give_port(giving, thread, thread->ports[i]))
			return false;
	return give_held(giving, thread) && give_events(giving, thread);
}

static bool give_states(struct giving *giving)
{
	const struct gw_control *control = giving->control;
	bool is_given = true;

	for (uint32_t i = 0; i < control->sas.count && is_given; i++) {
		const struct gw_sa_entry *sa = control->sas.items[i];
		struct gw_succession_sa record = {
			.header = {.kind = GW_SUCCESSION_SA, .bytes = sizeof(record)},
			.cookie = sa->record.cookie,
			.events = sa->record.events,
		};

		gw_sa_save(control->daemon.threads[sa->record.worker]->engine, sa->ref,
			   &record.state);
		giving->end.sas++;
		is_given = gw_succession_put(&giving->talk, &record, NULL, 0);
	}
	return is_given;
}

/* Have all threads stand still with nothing at hand. */
static void park(struct giving *giving)
{
	struct gw_daemon *daemon = &giving->control->daemon;
	uint32_t left = 1;

	for (uint32_t i = 0; i < daemon->thread_count; i++)
		gw_thread_park(daemon->threads[i], &giving->parking[i]);
	for (int round = 0; left && round < DRAIN_ROUNDS; round++) {
		left = 0;
		for (uint32_t i = 0; i < daemon->thread_count; i++)
			left += gw_thread_drain(daemon->threads[i]);
	}
}

static void unpark(struct giving *giving)
{
	for (uint32_t i = 0; i < giving->control->daemon.thread_count; i++)
		gw_thread_unpark(&giving->parking[i]);
}

/* Give what is left, and with it the packets. */
static bool let_go(struct giving *giving)
{
	const struct gw_daemon *daemon = &giving->control->daemon;

	for (uint32_t i = 0; i < daemon->thread_count; i++)
		if (!give_thread(giving, daemon->threads[i]))
			return false;
	giving->end.header = (struct gw_succession_header){
		.kind = GW_SUCCESSION_END,
		.bytes = sizeof(giving->end),
	};
	return give_states(giving) && gw_succession_put(&giving->talk, &giving->end, NULL, 0) &&
	       gw_succession_expect(&giving->talk, GW_SUCCESSION_READY,
				    sizeof(struct gw_succession_plain), READY_MS) &&
	       gw_succession_say(&giving->talk, GW_SUCCESSION_GO);
}

/* --- all of it */

static const char *why_not(const struct gw_succession_ask *ask)
{
	if (ask->version != GW_SUCCESSION_VERSION)
		return "it tells its state in another version";
	if (ask->control_version != GW_CONTROL_VERSION)
		return "it speaks another version with agents";
	if (ask->drop_reasons != GW_DROP_REASON_COUNT)
		return "it knows other drop reasons";
	return NULL;
}

static bool give(struct giving *giving, int listener)
{
	bool is_gone;

	if (!prepare(giving, listener))
		return false;
	park(giving);
	is_gone = let_go(giving);
	if (!is_gone)
		unpark(giving);
	return is_gone;
}

bool gw_give_over(struct gw_control *control, int connection, int listener,
		  const struct gw_succession_ask *ask)
{
	const char *refusal = why_not(ask);
	struct giving *giving = calloc(1, sizeof(*giving));
	bool is_gone = false;

	if (!giving)
		return false;
	giving->control = control;
	giving->talk.connection = connection;
	memset(giving->talk.fds, 0xff, sizeof(giving->talk.fds));
	giving->lent = calloc(control->daemon.config.frames + 1, 1);
	if (refusal)
		gw_succession_refuse(&giving->talk, refusal);
	else if (giving->lent)
		is_gone = give(giving, listener);
	if (!is_gone)
		fprintf(stderr, "espd: not handed over: %s\n",
			refusal ? refusal : giving->talk.why);
	gw_succession_close_fds(&giving->talk);
	free(giving->lent);
	gw_wipe(giving->talk.record, sizeof(giving->talk.record));
	gw_wipe(&giving->message, sizeof(giving->message));
	gw_wipe(&giving->sa, sizeof(giving->sa));
	/* Its threads stand still in there for as long as this process lives. */
	if (!is_gone)
		free(giving);
	return is_gone;
}
