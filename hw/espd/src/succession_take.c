/* SPDX-License-Identifier: Apache-2.0 */
/* The side of a hand-over that takes everything over; see succession.h. Until GO nothing is touched. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "succession.h"

/* Between two records of the other side, which has many to send and other things to do. */
#define NEXT_MS 5000
/* It answers READY at once, or hangs up. */
#define GO_MS 10000

/* What a thread will have when it begins. */
struct share {
	struct gw_port *ports[GW_MAX_PORTS];
	uint32_t port_count;
	uint8_t *used; /* a byte for each frame */
	struct gw_held held[GW_HELD_PACKETS];
	uint32_t held_count;
	struct gw_control_counters counts;
};

struct taking {
	struct gw_control *control;
	struct gw_succession talk;
	struct share shares[GW_MAX_WORKERS];
	uint8_t *lent;
	struct gw_succession_end seen;
	union gw_any_reply reply;
	_Alignas(8) uint8_t message[GW_MESSAGE_BYTES];
};

static bool fail(struct taking *taking, const char *why)
{
	snprintf(taking->talk.why, sizeof(taking->talk.why), "%s", why);
	return false;
}

/* --- what does not change with every packet */

static bool take_pool(struct taking *taking, uint32_t worker)
{
	struct gw_succession *talk = &taking->talk;
	const struct gw_succession_pool *record = gw_succession_expect(
		talk, GW_SUCCESSION_POOL, sizeof(struct gw_succession_pool), NEXT_MS);
	struct gw_control *control = taking->control;
	uint32_t wanted;

	if (!record)
		return false;
	wanted = record->is_live ? (1u << GW_LIVE_DESCRIPTORS) - 1 : 1;
	if (record->worker != worker || record->header.descriptors != wanted)
		return fail(taking, "the memory of a worker is missing");
	if (!record->is_live) {
		control->daemon.inherited_pools[worker] = talk->fds[0];
		talk->fds[0] = -1;
		return true;
	}
	if ((worker + 1) * GW_LIVE_DESCRIPTORS > GW_MAX_DESCRIPTORS)
		return fail(taking, "there are too many workers with live frames");
	for (uint32_t i = 0; i < GW_LIVE_DESCRIPTORS; i++) {
		control->descriptors[worker * GW_LIVE_DESCRIPTORS + i] = talk->fds[i];
		talk->fds[i] = -1;
	}
	return true;
}

/* Do as the agent said to the other one. */
static bool do_message(struct taking *taking, uint32_t workers, bool *is_last)
{
	const struct gw_control_header *header = (const void *)taking->message;
	const size_t head = sizeof(struct gw_succession_message);
	const struct gw_succession_header *record = gw_succession_get(&taking->talk, NEXT_MS);
	struct gw_control *control = taking->control;
	size_t bytes;
	int error;

	if (!record)
		return false;
	bytes = record->bytes - head;
	if (record->kind != GW_SUCCESSION_MESSAGE || record->bytes < head + sizeof(*header) ||
	    bytes > sizeof(taking->message))
		return fail(taking, "the other espd speaks out of turn");
	memcpy(taking->message, (const uint8_t *)record + head, bytes);
	error = gw_check_message(taking->message, bytes);
	*is_last = error == GW_OK && header->type == GW_MESSAGE_COMMIT;
	switch (error == GW_OK ? header->type : GW_MESSAGE_UNSPECIFIED) {
	case GW_MESSAGE_DEVICE_SET: {
		const struct gw_control_device *device = (const void *)taking->message;

		control->devices[device->device] = *device;
		return true;
	}
	case GW_MESSAGE_CONFIGURE:
		if (((const struct gw_control_configure *)(const void *)taking->message)->workers !=
		    workers)
			return fail(taking, "there are pools for other workers");
		break;
	case GW_MESSAGE_SA_ADD:
	case GW_MESSAGE_POLICY_SET:
	case GW_MESSAGE_ROUTE_SET:
	case GW_MESSAGE_NEIGHBOUR_SET:
	case GW_MESSAGE_TUNNEL_SET:
	case GW_MESSAGE_COMMIT:
		break;
	default:
		return fail(taking, "a message is not what its type promises");
	}
	gw_control_handle(control, taking->message, bytes, &taking->reply);
	return taking->reply.reply.error == GW_OK || fail(taking, taking->reply.reply.reason);
}

static bool prepare(struct taking *taking, int *listener)
{
	struct gw_succession_ask ask = {
		.header = {.kind = GW_SUCCESSION_ASK, .bytes = sizeof(ask)},
		.version = GW_SUCCESSION_VERSION,
		.control_version = GW_CONTROL_VERSION,
		.drop_reasons = GW_DROP_REASON_COUNT,
	};
	struct gw_succession *talk = &taking->talk;
	struct gw_control *control = taking->control;
	const struct gw_succession_begin *begin;
	uint32_t workers;
	bool is_last;

	if (!gw_succession_put(talk, &ask, NULL, 0))
		return false;
	begin = gw_succession_expect(talk, GW_SUCCESSION_BEGIN, sizeof(*begin), NEXT_MS);
	if (!begin)
		return false;
	if (talk->fds[0] < 0 || begin->pools > GW_MAX_WORKERS)
		return fail(taking, "the control socket is missing");
	*listener = talk->fds[0];
	talk->fds[0] = -1;
	memcpy(control->life, begin->life, sizeof(control->life));
	control->started_ns = begin->started_ns;
	workers = begin->pools;
	for (uint32_t worker = 0; worker < workers; worker++)
		if (!take_pool(taking, worker))
			return false;
	control->is_greeted = true;
	for (is_last = workers == 0; !is_last;)
		if (!do_message(taking, workers, &is_last))
			return false;
	control->is_greeted = false;
	return control->daemon.thread_count == workers ||
	       fail(taking, "there were no workers to be made");
}

/* --- what does: the other's threads stand still */

/* Note who has which frame; nobody has one twice. */
static bool claim(struct taking *taking, struct share *share, uint32_t frame)
{
	if (share->used[frame])
		return fail(taking, "two have the same frame");
	share->used[frame] = 1;
	return true;
}

static struct gw_io *restore_io(struct taking *taking, const struct gw_io_options *options,
				unsigned int kind, const uint8_t *data, uint32_t bytes, int *fds)
{
	const struct gw_io_method *method = gw_io_find(kind);
	struct gw_io_saved saved = {.bytes = bytes, .lent = taking->lent};
	char why[GW_IO_WHY_BYTES] = "";
	struct gw_io *io = NULL;

	if (!method || !method->restore || bytes > sizeof(saved.data)) {
		fail(taking, "a method is not in this build");
		return NULL;
	}
	memcpy(saved.data, data, bytes);
	memcpy(saved.fds, fds, sizeof(saved.fds));
	if (method->restore(options, &saved, &io, why)) {
		snprintf(taking->talk.why, sizeof(taking->talk.why), "%s: %.120s", method->name,
			 why);
		return NULL;
	}
	/* They are the object's now. */
	memset(fds, 0xff, sizeof(saved.fds));
	return io;
}

static bool is_sound(const struct gw_control *control, const struct gw_succession_port *record)
{
	const struct gw_control_device *device;

	if (record->worker >= control->daemon.thread_count || record->device == 0 ||
	    record->device > GW_MAX_DEVICES)
		return false;
	device = &control->devices[record->device];
	return device->device == record->device && record->queue < device->queues &&
	       record->batch > 0 && record->batch <= GW_BATCH &&
	       record->receive_at <= GW_MAX_METHODS && record->send_at <= GW_MAX_METHODS &&
	       (!record->is_same || record->receiver_kind) && record->fell_from <= GW_MAX_METHODS &&
	       record->reason_bytes < GW_REASON_BYTES &&
	       memchr(record->reason, 0, sizeof(record->reason));
}

static struct gw_port *new_port(struct taking *taking, const struct gw_succession_port *record)
{
	struct gw_port *port = calloc(1, sizeof(*port));

	if (!port)
		return NULL;
	port->device = taking->control->devices[record->device];
	port->queue = record->queue;
	port->batch = record->batch;
	port->receive_at = record->receive_at;
	port->send_at = record->send_at;
	port->owns_queue = record->owns_queue != 0;
	port->fell_from = record->fell_from;
	port->reason_bytes = record->reason_bytes;
	port->retry_s = record->retry_s;
	port->retry_ns = record->retry_ns;
	port->send_refused = record->send_refused;
	port->closed = record->closed;
	port->told = record->told;
	memcpy(port->reason, record->reason, sizeof(port->reason));
	port->steering_fd = taking->talk.fds[0];
	taking->talk.fds[0] = -1;
	return port;
}

static bool take_port(struct taking *taking, const struct gw_succession_port *record)
{
	struct gw_control *control = taking->control;
	const uint8_t *bits = (const uint8_t *)(record + 1);
	uint32_t frames = control->daemon.config.frames;
	int *fds = taking->talk.fds + 1;
	struct gw_io_options options;
	struct share *share;
	struct gw_port *port;

	if (record->header.bytes != sizeof(*record) + (frames + 7) / 8 ||
	    !is_sound(control, record))
		return fail(taking, "a port is not one of ours");
	share = &taking->shares[record->worker];
	if (share->port_count == GW_MAX_PORTS)
		return fail(taking, "there are too many ports");
	for (uint32_t frame = 0; frame < frames; frame++) {
		taking->lent[frame] = bits[frame / 8] >> frame % 8 & 1;
		if (taking->lent[frame] && !claim(taking, share, frame))
			return false;
	}
	port = new_port(taking, record);
	if (!port)
		return fail(taking, "no memory");
	share->ports[share->port_count++] = port;
	taking->seen.ports++;
	options = gw_port_options(control->daemon.threads[record->worker], port);
	if (record->receiver_kind) {
		port->receiver = restore_io(taking, &options, record->receiver_kind,
					    record->receiver, record->receiver_bytes, fds);
		if (!port->receiver)
			return false;
	}
	if (record->is_same)
		port->sender = port->receiver;
	else if (record->sender_kind)
		port->sender = restore_io(taking, &options, record->sender_kind, record->sender,
					  record->sender_bytes, fds + GW_IO_SAVED_DESCRIPTORS);
	return !record->sender_kind || port->sender;
}

static bool take_worker(struct taking *taking, const struct gw_succession_worker *record)
{
	if (record->header.bytes != sizeof(*record) ||
	    record->worker >= taking->control->daemon.thread_count)
		return fail(taking, "there is no such worker");
	taking->shares[record->worker].counts = record->counts;
	return true;
}

struct resuming {
	uint32_t ref;
	const struct gw_sa_state *state;
	enum gw_error error;
};

static void resume_sa(struct gw_thread *thread, void *argument)
{
	struct resuming *resuming = argument;

	resuming->error = gw_sa_restore(thread->engine, resuming->ref, resuming->state);
}

static bool take_sa(struct taking *taking, const struct gw_succession_sa *record)
{
	struct gw_control *control = taking->control;
	struct gw_sa_entry key, *sa;
	struct resuming resuming = {.state = &record->state};

	if (record->header.bytes != sizeof(*record))
		return fail(taking, "the state of an SA has another size");
	memset(&key, 0, sizeof(key));
	key.record.cookie = record->cookie;
	sa = gw_table_find(&control->sas, &key);
	if (!sa)
		return fail(taking, "there is no such SA");
	sa->record.events = record->events;
	resuming.ref = sa->ref;
	gw_thread_call(control->daemon.threads[sa->record.worker], resume_sa, &resuming);
	taking->seen.sas++;
	return resuming.error == GW_OK || fail(taking, "the engine has not the SA");
}

static bool take_held(struct taking *taking, const struct gw_succession_held *record)
{
	struct gw_control *control = taking->control;
	const struct gw_pool *pool;
	struct share *share;
	struct gw_held *held;
	uint64_t frame, offset;

	if (record->header.bytes != sizeof(*record) ||
	    record->worker >= control->daemon.thread_count || record->device > GW_MAX_DEVICES)
		return fail(taking, "a held packet is nobody's");
	pool = &control->daemon.threads[record->worker]->pool;
	share = &taking->shares[record->worker];
	frame = record->offset >> pool->frame_shift;
	offset = record->offset & (pool->frame_bytes - 1);
	if (frame >= pool->frames || record->length > pool->frame_bytes - offset ||
	    share->held_count == GW_HELD_PACKETS)
		return fail(taking, "a held packet lies in no frame");
	if (!claim(taking, share, (uint32_t)frame))
		return false;
	held = &share->held[share->held_count++];
	held->until_ns = record->until_ns;
	held->policy = record->policy;
	gw_frame_describe(pool, (uint32_t)frame, (uint32_t)offset, record->length, &held->packet);
	held->packet.reserved = record->device;
	taking->seen.held++;
	return true;
}

static void tell_again(struct gw_thread *thread, void *argument)
{
	union gw_any_event *event = argument;

	gw_thread_tell(thread, event, event->header.type, event->header.bytes);
}

static bool take_event(struct taking *taking, struct gw_succession_event *record)
{
	const struct gw_daemon *daemon = &taking->control->daemon;

	if (record->header.bytes != sizeof(*record) || record->worker >= daemon->thread_count ||
	    record->event.header.bytes > sizeof(record->event) ||
	    record->event.header.bytes < sizeof(record->event.header))
		return fail(taking, "an event is nobody's");
	gw_thread_call(daemon->threads[record->worker], tell_again, &record->event);
	return true;
}

static bool take_end(struct taking *taking, const struct gw_succession_end *record)
{
	const struct gw_succession_end *seen = &taking->seen;

	if (record->header.bytes != sizeof(*record))
		return fail(taking, "the other espd speaks out of turn");
	return (record->ports == seen->ports && record->sas == seen->sas &&
		record->sas == taking->control->sas.count && record->held == seen->held) ||
	       fail(taking, "something was lost on the way");
}

static bool take_record(struct taking *taking, void *record)
{
	const struct gw_succession_header *header = record;

	switch (header->kind) {
	case GW_SUCCESSION_WORKER:
		return take_worker(taking, record);
	case GW_SUCCESSION_PORT:
		return header->bytes >= sizeof(struct gw_succession_port) &&
		       take_port(taking, record);
	case GW_SUCCESSION_SA:
		return take_sa(taking, record);
	case GW_SUCCESSION_HELD:
		return take_held(taking, record);
	case GW_SUCCESSION_EVENT:
		return take_event(taking, record);
	case GW_SUCCESSION_END:
		return take_end(taking, record);
	default:
		return fail(taking, "the other espd speaks out of turn");
	}
}

static bool take_the_rest(struct taking *taking)
{
	const struct gw_succession_header *header;

	do {
		header = gw_succession_get(&taking->talk, NEXT_MS);
		if (!header || !take_record(taking, taking->talk.record))
			return false;
	} while (header->kind != GW_SUCCESSION_END);
	return true;
}

/* --- from GO on */

static void begin(struct gw_thread *thread, void *argument)
{
	struct share *share = argument;

	gw_pool_keep(&thread->pool, share->used);
	thread->counts = share->counts;
	memcpy(thread->hold.packets, share->held, share->held_count * sizeof(share->held[0]));
	thread->hold.count = share->held_count;
	for (uint32_t i = 0; i < share->port_count; i++)
		gw_thread_add_port(thread, share->ports[i]);
}

static bool make_shares(struct taking *taking)
{
	const struct gw_daemon *daemon = &taking->control->daemon;

	taking->lent = calloc(daemon->config.frames + 1, 1);
	for (uint32_t i = 0; i < daemon->thread_count; i++) {
		taking->shares[i].used = calloc(daemon->config.frames, 1);
		if (!taking->shares[i].used)
			return fail(taking, "no memory");
	}
	return taking->lent || fail(taking, "no memory");
}

static bool take(struct taking *taking, int *listener)
{
	struct gw_succession *talk = &taking->talk;
	const struct gw_daemon *daemon = &taking->control->daemon;

	if (!prepare(taking, listener) || !make_shares(taking) ||
	    !gw_succession_say(talk, GW_SUCCESSION_PREPARED) || !take_the_rest(taking) ||
	    !gw_succession_say(talk, GW_SUCCESSION_READY) ||
	    !gw_succession_expect(talk, GW_SUCCESSION_GO, sizeof(struct gw_succession_plain),
				  GO_MS))
		return false;
	for (uint32_t i = 0; i < daemon->thread_count; i++)
		gw_thread_call(daemon->threads[i], begin, &taking->shares[i]);
	return true;
}

bool gw_take_over(struct gw_control *control, int connection, int *listener, char *why)
{
	struct taking *taking = calloc(1, sizeof(*taking));
	bool is_ours;

	snprintf(why, GW_REASON_BYTES, "no memory");
	if (!taking)
		return false;
	taking->control = control;
	taking->talk.connection = connection;
	memset(taking->talk.fds, 0xff, sizeof(taking->talk.fds));
	is_ours = take(taking, listener);
	memcpy(why, taking->talk.why, sizeof(taking->talk.why));
	if (!is_ours)
		gw_succession_refuse(&taking->talk, why);
	gw_succession_close_fds(&taking->talk);
	for (uint32_t i = 0; i < GW_MAX_WORKERS; i++)
		free(taking->shares[i].used);
	free(taking->lent);
	gw_wipe(taking, sizeof(*taking));
	free(taking);
	return is_ours;
}
