/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "control.h"

int gw_compare_sas(const void *a, const void *b)
{
	uint64_t left = ((const struct gw_sa_entry *)a)->record.cookie;
	uint64_t right = ((const struct gw_sa_entry *)b)->record.cookie;

	return left < right ? -1 : left > right;
}

static struct gw_sa_entry *find(const struct gw_control *control, uint64_t cookie)
{
	const struct gw_sa_entry key = {.record.cookie = cookie};

	return gw_table_find(&control->sas, &key);
}

static struct gw_thread *owner_of(const struct gw_control *control, const struct gw_sa_entry *sa)
{
	return control->daemon.threads[sa->record.worker];
}

static void clear_entry(struct gw_sa_entry *sa)
{
	gw_selectors_clear(&sa->selectors);
	if (sa->params)
		gw_wipe(sa->params, sa->params_bytes);
	free(sa->params);
	sa->params = NULL;
}

static void free_entry(struct gw_sa_entry *sa)
{
	clear_entry(sa);
	free(sa);
}

void gw_sas_clear(struct gw_control *control)
{
	for (uint32_t i = 0; i < control->sas.count; i++)
		clear_entry(control->sas.items[i]);
	gw_table_clear(&control->sas);
}

/* --- what is kept for whoever takes over */

static bool keep_params(struct gw_sa_entry *sa, const struct gw_sa_params *params)
{
	size_t selectors = (size_t)params->local_selectors + params->remote_selectors;

	sa->params_bytes =
		offsetof(struct gw_sa_params, selectors) + selectors * sizeof(params->selectors[0]);
	sa->params = malloc(sa->params_bytes);
	if (sa->params)
		memcpy(sa->params, params, sa->params_bytes);
	return sa->params != NULL;
}

void gw_sa_describe(const struct gw_sa_entry *sa, struct gw_control_sa *message)
{
	const struct gw_control_sa_record *record = &sa->record;

	memset(message, 0, sizeof(*message));
	message->header = (struct gw_control_header){
		.version = GW_CONTROL_VERSION,
		.type = GW_MESSAGE_SA_ADD,
		.bytes = sizeof(*message),
	};
	message->worker = record->worker;
	message->note_bytes = record->note_bytes;
	message->device = record->device;
	memcpy(&message->params, sa->params, sa->params_bytes);
	memcpy(message->note, record->note, sizeof(message->note));
	/* What has changed since. */
	memcpy(message->params.destination, record->destination, sizeof(record->destination));
	message->params.udp_destination_port = record->udp_destination_port;
	message->params.sequence_limit = record->sequence_limit;
}

/* --- installing */

/* A place in the worker's table that was not used for as long as possible. */
static bool find_place(struct gw_control *control, uint16_t worker, uint32_t *place)
{
	uint32_t count = control->daemon.config.outbound_sas;

	for (uint32_t tried = 0; tried < count; tried++) {
		*place = control->next_place[worker];
		control->next_place[worker] = (*place + 1) % count;
		if (!control->places[worker][*place])
			return true;
	}
	return false;
}

struct adding {
	const struct gw_control_sa *request;
	struct gw_sa_params params;
	uint32_t ref;
	struct gw_sa_usage usage;
	enum gw_error error;
};

static void note_mtu(struct gw_thread *thread, uint32_t ref, uint32_t mtu)
{
	if (!(ref & GW_REF_INBOUND))
		thread->mtus[ref] = (uint16_t)mtu;
}

static void add(struct gw_thread *thread, void *argument)
{
	struct adding *adding = argument;

	adding->error = gw_sa_add(thread->engine, &adding->params, NULL, &adding->ref);
	if (adding->error != GW_OK)
		return;
	gw_sa_read(thread->engine, adding->ref, &adding->usage);
	note_mtu(thread, adding->ref, adding->usage.effective_mtu);
}

static void fill_record(struct gw_sa_entry *sa, const struct gw_control_sa *from)
{
	const struct gw_sa_params *params = &from->params;

	sa->record = (struct gw_control_sa_record){
		.cookie = params->cookie,
		.spi = params->spi,
		.direction = params->direction,
		.protocol = params->protocol,
		.mode = params->mode,
		.family = params->family,
		.udp_source_port = params->udp_source_port,
		.udp_destination_port = params->udp_destination_port,
		.worker = from->worker,
		.note_bytes = from->note_bytes,
		.device = from->device,
		.sequence_limit = params->sequence_limit,
	};
	memcpy(sa->record.source, params->source, sizeof(sa->record.source));
	memcpy(sa->record.destination, params->destination, sizeof(sa->record.destination));
	memcpy(sa->record.note, from->note, from->note_bytes);
}

/* Check what the whole of espd must agree to, and choose the worker. */
static int place_sa(struct gw_control *control, struct gw_sa_entry *sa, struct gw_sa_params *params,
		    union gw_any_reply *reply)
{
	struct gw_daemon *daemon = &control->daemon;

	if (sa->record.worker == GW_ANY_WORKER)
		sa->record.worker = (uint16_t)(params->spi % daemon->thread_count);
	if (sa->record.worker >= daemon->thread_count)
		return gw_refuse(reply, GW_E_NO_ENTRY, "no such worker");
	if (params->direction == GW_OUTBOUND)
		return find_place(control, sa->record.worker, &params->index)
			       ? GW_OK
			       : gw_refuse(reply, GW_E_FULL, "the worker has no place for it");
	if (gw_owner_of(daemon, params->spi) != 0)
		return gw_refuse(reply, GW_E_TAKEN, "another SPI has the same low bits");
	return GW_OK;
}

static void publish(struct gw_control *control, const struct gw_sa_entry *sa)
{
	struct gw_daemon *daemon = &control->daemon;

	if (sa->record.direction == GW_OUTBOUND)
		control->places[sa->record.worker][sa->ref] = 1;
	else
		atomic_store(&daemon->owners[sa->record.spi & daemon->inbound_mask],
			     gw_owner_pack(sa->record.spi, sa->record.worker, sa->record.device));
}

static int install(struct gw_control *control, const struct gw_control_sa *from,
		   struct gw_sa_entry *sa, union gw_any_reply *reply)
{
	struct adding adding = {.params = from->params};
	void *replaced;
	int error;

	fill_record(sa, from);
	error = place_sa(control, sa, &adding.params, reply);
	if (error == GW_OK &&
	    (!gw_selectors_init(&sa->selectors, from->params.selectors,
				from->params.local_selectors, from->params.remote_selectors) ||
	     !keep_params(sa, &from->params) || !gw_table_put(&control->sas, sa, &replaced)))
		error = gw_refuse(reply, GW_E_MEMORY, "no memory");
	if (error != GW_OK)
		goto wipe;
	gw_thread_call(owner_of(control, sa), add, &adding);
	error = adding.error;
	if (error != GW_OK) {
		gw_table_take(&control->sas, sa);
		gw_refuse(reply, error, "the engine refused the SA");
		goto wipe;
	}
	sa->ref = adding.ref;
	reply->sa.cookie = sa->record.cookie;
	reply->sa.effective_mtu = adding.usage.effective_mtu;
	reply->sa.worker = sa->record.worker;
	reply->sa.crypto = adding.usage.crypto;
	publish(control, sa);
wipe:
	gw_wipe(&adding, sizeof(adding));
	return error;
}

int gw_request_sa_add(struct gw_control *control, const void *message, union gw_any_reply *reply)
{
	const struct gw_control_sa *from = message;
	struct gw_sa_entry *sa;
	int error;

	if (find(control, from->params.cookie))
		return gw_refuse(reply, GW_E_TAKEN, "an SA has this cookie");
	sa = calloc(1, sizeof(*sa));
	if (!sa)
		return gw_refuse(reply, GW_E_MEMORY, "no memory");
	error = install(control, from, sa, reply);
	if (error != GW_OK)
		free_entry(sa);
	return error;
}

/* --- reading */

struct reading {
	const struct gw_sa_entry *sa;
	struct gw_control_sa_record *to;
};

static void read_sa(struct gw_thread *thread, void *argument)
{
	const struct reading *reading = argument;

	*reading->to = reading->sa->record;
	gw_sa_read(thread->engine, reading->sa->ref, &reading->to->usage);
	reading->to->now_ns = thread->now_ns;
}

int gw_request_sa_read(struct gw_control *control, const void *message, union gw_any_reply *reply)
{
	const struct gw_control_sa_name *name = message;
	struct reading reading = {find(control, name->cookie), &reply->sa_state.sa};

	if (!reading.sa)
		return gw_refuse(reply, GW_E_NO_SA, "no such SA");
	gw_thread_call(owner_of(control, reading.sa), read_sa, &reading);
	return GW_OK;
}

int gw_request_sa_list(struct gw_control *control, const void *message, union gw_any_reply *reply)
{
	const struct gw_control_sa_name *name = message;
	const struct gw_sa_entry key = {.record.cookie = name->cookie};
	uint32_t at = gw_table_after(&control->sas, &key);
	struct gw_control_sa_list *list = &reply->sa_list;

	for (; at < control->sas.count && list->count < GW_SAS_LISTED; at++) {
		struct reading reading = {control->sas.items[at], &list->sas[list->count++]};

		gw_thread_call(owner_of(control, reading.sa), read_sa, &reading);
	}
	return GW_OK;
}

bool gw_sa_note_event(struct gw_control *control, struct gw_control_event_sa *event)
{
	struct gw_sa_entry *sa = find(control, event->event.cookie);

	if (!sa)
		return false;
	sa->record.events |= event->event.kinds;
	event->spi = sa->record.spi;
	return true;
}

/* --- tunnels */

static void publish_tunnel(struct gw_daemon *daemon, uint32_t tunnel,
			   const struct gw_tunnel_sas *sas)
{
	const struct gw_tunnel_sas *old = atomic_exchange(&daemon->tunnels[tunnel], sas);

	atomic_fetch_add(&daemon->generation, 1);
	gw_quiesce(daemon);
	free((void *)(uintptr_t)old);
}

static int collect(const struct gw_control *control, const struct gw_control_tunnel *from,
		   struct gw_tunnel_sas *sas)
{
	for (; sas->count < from->count; sas->count++) {
		const struct gw_sa_entry *sa = find(control, from->cookies[sas->count]);

		if (!sa || sa->record.direction != GW_OUTBOUND)
			return GW_E_NO_SA;
		sas->sas[sas->count].ref = sa->ref;
		sas->sas[sas->count].worker = sa->record.worker;
		sas->sas[sas->count].selectors = &sa->selectors;
	}
	return GW_OK;
}

int gw_request_tunnel_set(struct gw_control *control, const void *message,
			  union gw_any_reply *reply)
{
	const struct gw_control_tunnel *from = message;
	struct gw_tunnel_sas *sas;

	if (from->tunnel > control->daemon.config.tunnels)
		return gw_refuse(reply, GW_E_INVALID, "there are not so many tunnels");
	sas = calloc(1, sizeof(*sas));
	if (!sas)
		return gw_refuse(reply, GW_E_MEMORY, "no memory");
	if (collect(control, from, sas) != GW_OK) {
		free(sas);
		return gw_refuse(reply, GW_E_NO_SA, "no such outbound SA");
	}
	publish_tunnel(&control->daemon, from->tunnel, sas);
	return GW_OK;
}

/* Take an SA out of every tunnel that it serves. */
static int leave_tunnels(struct gw_control *control, const struct gw_sa_entry *sa)
{
	struct gw_daemon *daemon = &control->daemon;

	for (uint32_t tunnel = 1; tunnel <= daemon->config.tunnels; tunnel++) {
		const struct gw_tunnel_sas *old = atomic_load(&daemon->tunnels[tunnel]);
		struct gw_tunnel_sas *left;

		for (uint32_t i = 0; old && i < old->count; i++) {
			if (old->sas[i].selectors != &sa->selectors)
				continue;
			left = malloc(sizeof(*left));
			if (!left)
				return GW_E_MEMORY;
			*left = *old;
			left->count--;
			memmove(&left->sas[i], &left->sas[i + 1],
				(left->count - i) * sizeof(left->sas[0]));
			publish_tunnel(daemon, tunnel, left);
			break;
		}
	}
	return GW_OK;
}

/* --- taking out */

static void remove_sa(struct gw_thread *thread, void *argument)
{
	const struct reading *reading = argument;

	/* What others handed over before they knew goes the old way: the place may get another SA. */
	gw_thread_empty_rings(thread);
	read_sa(thread, argument);
	gw_sa_remove(thread->engine, reading->sa->ref);
	note_mtu(thread, reading->sa->ref, 0);
}

int gw_request_sa_remove(struct gw_control *control, const void *message, union gw_any_reply *reply)
{
	const struct gw_control_sa_name *name = message;
	struct gw_sa_entry *sa = find(control, name->cookie);
	struct reading reading = {sa, &reply->sa_state.sa};
	struct gw_daemon *daemon = &control->daemon;

	if (!sa)
		return gw_refuse(reply, GW_E_NO_SA, "no such SA");
	if (sa->record.direction == GW_INBOUND)
		atomic_store(&daemon->owners[sa->record.spi & daemon->inbound_mask], 0);
	else if (leave_tunnels(control, sa) != GW_OK)
		return gw_refuse(reply, GW_E_MEMORY, "no memory");
	gw_thread_call(owner_of(control, sa), remove_sa, &reading);
	if (sa->record.direction == GW_OUTBOUND)
		control->places[sa->record.worker][sa->ref] = 0;
	gw_table_take(&control->sas, sa);
	free_entry(sa);
	return GW_OK;
}

/* --- changing */

struct changing {
	const struct gw_sa_entry *sa;
	const void *message;
	enum gw_error error;
};

static void reserve(struct gw_thread *thread, void *argument)
{
	struct changing *changing = argument;
	const struct gw_control_sa_reserve *from = changing->message;

	changing->error = gw_sa_reserve(thread->engine, changing->sa->ref, from->sequence_limit);
}

static void move(struct gw_thread *thread, void *argument)
{
	struct changing *changing = argument;
	const struct gw_control_sa_move *from = changing->message;

	changing->error =
		gw_sa_move(thread->engine, changing->sa->ref, from->destination, from->port);
}

static void set_path_mtu(struct gw_thread *thread, void *argument)
{
	struct changing *changing = argument;
	const struct gw_control_sa_path_mtu *from = changing->message;
	struct gw_sa_usage usage = {0};

	changing->error = gw_sa_set_path_mtu(thread->engine, changing->sa->ref, from->path_mtu);
	if (changing->error != GW_OK)
		return;
	gw_sa_read(thread->engine, changing->sa->ref, &usage);
	note_mtu(thread, changing->sa->ref, usage.effective_mtu);
}

static int change(struct gw_control *control, struct gw_sa_entry *sa, struct changing *changing,
		  void (*how)(struct gw_thread *, void *), union gw_any_reply *reply)
{
	if (!sa)
		return gw_refuse(reply, GW_E_NO_SA, "no such SA");
	changing->sa = sa;
	gw_thread_call(owner_of(control, sa), how, changing);
	if (changing->error != GW_OK)
		return gw_refuse(reply, changing->error, "the engine refused the change");
	return GW_OK;
}

int gw_request_sa_reserve(struct gw_control *control, const void *message,
			  union gw_any_reply *reply)
{
	const struct gw_control_sa_reserve *from = message;
	struct gw_sa_entry *sa = find(control, from->cookie);
	struct changing changing = {.message = message};
	int error = change(control, sa, &changing, reserve, reply);

	if (error == GW_OK)
		sa->record.sequence_limit = from->sequence_limit;
	return error;
}

int gw_request_sa_move(struct gw_control *control, const void *message, union gw_any_reply *reply)
{
	const struct gw_control_sa_move *from = message;
	struct gw_sa_entry *sa = find(control, from->cookie);
	struct changing changing = {.message = message};
	int error = change(control, sa, &changing, move, reply);

	if (error != GW_OK)
		return error;
	memcpy(sa->record.destination, from->destination, sizeof(sa->record.destination));
	sa->record.udp_destination_port = from->port;
	return GW_OK;
}

int gw_request_sa_path_mtu(struct gw_control *control, const void *message,
			   union gw_any_reply *reply)
{
	const struct gw_control_sa_path_mtu *from = message;
	struct gw_sa_entry *sa = find(control, from->cookie);
	struct changing changing = {.message = message};
	int error = change(control, sa, &changing, set_path_mtu, reply);

	if (error == GW_OK)
		sa->params->path_mtu = from->path_mtu;
	return error;
}
