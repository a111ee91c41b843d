/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "build_id.h"
#include "bytes.h"
#include "control.h"

/* When a request may come. */
enum stage {
	BEFORE_HELLO = 0,
	AFTER_HELLO,
	AFTER_CONFIGURE,
};

int gw_refuse(union gw_any_reply *reply, int error, const char *reason)
{
	snprintf(reply->reply.reason, sizeof(reply->reply.reason), "%s", reason);
	return error;
}

/* --- about espd itself */

static int hello(struct gw_control *control, const void *message, union gw_any_reply *reply)
{
	const struct gw_control_hello *from = message;
	struct gw_control_hello_reply *to = &reply->hello;

	if (from->drop_reasons != GW_DROP_REASON_COUNT)
		return gw_refuse(reply, GW_E_VERSION, "the agent knows other drop reasons");
	control->is_greeted = true;
	atomic_store(&control->daemon.has_agent, true);
	memcpy(to->life, control->life, sizeof(to->life));
	to->started_ns = control->started_ns;
	to->process = (uint32_t)getpid();
	to->workers = (uint16_t)control->daemon.thread_count;
	to->sas = control->sas.count;
	for (unsigned int kind = 1; kind < GW_IO_COUNT; kind++)
		to->methods |= gw_io_find(kind) ? 1u << kind : 0;
	snprintf(to->ipsecmb, sizeof(to->ipsecmb), "%s", gw_crypto_name(GW_CRYPTO_IPSECMB));
	snprintf(to->openssl, sizeof(to->openssl), "%s", gw_crypto_name(GW_CRYPTO_OPENSSL));
	gw_build_id(to->build);
	return GW_OK;
}

static bool is_same_config(const struct gw_control_configure *a,
			   const struct gw_control_configure *b)
{
	const size_t head = sizeof(a->header);

	return memcmp((const char *)a + head, (const char *)b + head, sizeof(*a) - head) == 0;
}

static void stop_threads(struct gw_control *control)
{
	struct gw_daemon *daemon = &control->daemon;

	gw_threads_stop(daemon);
	for (int i = 0; i < GW_MAX_WORKERS; i++) {
		free(control->places[i]);
		control->places[i] = NULL;
	}
	free(daemon->owners);
	free(daemon->tunnels);
	daemon->owners = NULL;
	daemon->tunnels = NULL;
}

static bool make_tables(struct gw_control *control)
{
	struct gw_daemon *daemon = &control->daemon;
	const struct gw_control_configure *config = &daemon->config;

	daemon->inbound_mask = (1u << config->inbound_bits) - 1;
	daemon->owners = calloc((size_t)daemon->inbound_mask + 1, sizeof(*daemon->owners));
	daemon->tunnels = calloc((size_t)config->tunnels + 1, sizeof(*daemon->tunnels));
	for (uint32_t i = 0; i < config->workers; i++) {
		control->next_place[i] = 0;
		control->places[i] = calloc((size_t)config->outbound_sas + 1, 1);
		if (!control->places[i])
			return false;
	}
	return daemon->owners && daemon->tunnels;
}

/* The descriptors that came for a worker, or NULL. */
static int *live_of(struct gw_control *control, uint32_t worker)
{
	size_t first = (size_t)worker * GW_LIVE_DESCRIPTORS;

	if (first + GW_LIVE_DESCRIPTORS > GW_MAX_DESCRIPTORS || control->descriptors[first] < 0)
		return NULL;
	return &control->descriptors[first];
}

/* Whether there are descriptors for every worker, or for none. */
static bool is_complete(const struct gw_control *control, uint32_t workers)
{
	uint32_t count = 0;

	while (count < GW_MAX_DESCRIPTORS && control->descriptors[count] >= 0)
		count++;
	return count == 0 || count == workers * GW_LIVE_DESCRIPTORS;
}

static int configure(struct gw_control *control, const void *message, union gw_any_reply *reply)
{
	struct gw_daemon *daemon = &control->daemon;
	enum gw_error error = GW_E_MEMORY;

	if (daemon->thread_count)
		return is_same_config(message, &daemon->config)
			       ? GW_OK
			       : gw_refuse(reply, GW_E_ORDER, "already configured otherwise");
	memcpy(&daemon->config, message, sizeof(daemon->config));
	if (!is_complete(control, daemon->config.workers))
		return gw_refuse(reply, GW_E_DESCRIPTOR, "live frames need 6 for every worker");
	if (!make_tables(control)) {
		stop_threads(control);
		return gw_refuse(reply, GW_E_MEMORY, "no memory for the tables");
	}
	while (daemon->thread_count < daemon->config.workers) {
		int *live = live_of(control, daemon->thread_count);
		struct gw_thread *thread =
			gw_thread_start(daemon, (uint16_t)daemon->thread_count, live, &error);

		if (!thread) {
			stop_threads(control);
			return gw_refuse(reply, error, "a worker could not be started");
		}
		daemon->threads[daemon->thread_count++] = thread;
		if (live)
			memset(live, 0xff, GW_LIVE_DESCRIPTORS * sizeof(*live));
	}
	return GW_OK;
}

static void read_counters(struct gw_thread *thread, void *argument)
{
	struct gw_control_counters *sum = argument;
	const struct gw_control_counters *own = &thread->counts;
	uint64_t drops[GW_DROP_REASON_COUNT];

	sum->rounds += own->rounds;
	sum->sealed += own->sealed;
	sum->opened += own->opened;
	sum->forwarded += own->forwarded;
	sum->slow_path += own->slow_path;
	sum->bypassed += own->bypassed;
	sum->handed_over += own->handed_over;
	gw_worker_drops(thread->engine, drops);
	for (int i = 0; i < GW_DROP_REASON_COUNT; i++)
		sum->drops[i] += own->drops[i] + drops[i];
}

static int counters_read(struct gw_control *control, const void *message, union gw_any_reply *reply)
{
	const struct gw_control_worker_name *name = message;
	struct gw_daemon *daemon = &control->daemon;

	if (name->worker != GW_ANY_WORKER && name->worker >= daemon->thread_count)
		return gw_refuse(reply, GW_E_NO_ENTRY, "no such worker");
	for (uint32_t i = 0; i < daemon->thread_count; i++)
		if (name->worker == GW_ANY_WORKER || name->worker == i)
			gw_thread_call(daemon->threads[i], read_counters, &reply->counters);
	return GW_OK;
}

static int shut_down(struct gw_control *control, const void *message, union gw_any_reply *reply)
{
	(void)message;
	(void)reply;
	control->ends = true;
	return GW_OK;
}

/* --- all of them */

static const struct {
	gw_request_handler handle;
	size_t reply_bytes;
	enum stage stage;
} requests[GW_MESSAGE_COUNT] = {
#define PLAIN sizeof(struct gw_control_reply)
	[GW_MESSAGE_HELLO] = {hello, sizeof(struct gw_control_hello_reply), BEFORE_HELLO},
	[GW_MESSAGE_CONFIGURE] = {configure, PLAIN, AFTER_HELLO},
	[GW_MESSAGE_DEVICE_SET] = {gw_device_set, sizeof(struct gw_control_device_reply),
				   AFTER_CONFIGURE},
	[GW_MESSAGE_DEVICE_REMOVE] = {gw_device_remove, PLAIN, AFTER_CONFIGURE},
	[GW_MESSAGE_DEVICE_READ] = {gw_device_read, sizeof(struct gw_control_device_counters),
				    AFTER_CONFIGURE},
	[GW_MESSAGE_SA_ADD] = {gw_request_sa_add, sizeof(struct gw_control_sa_reply),
			       AFTER_CONFIGURE},
	[GW_MESSAGE_SA_REMOVE] = {gw_request_sa_remove, sizeof(struct gw_control_sa_state),
				  AFTER_CONFIGURE},
	[GW_MESSAGE_SA_READ] = {gw_request_sa_read, sizeof(struct gw_control_sa_state),
				AFTER_CONFIGURE},
	[GW_MESSAGE_SA_LIST] = {gw_request_sa_list, sizeof(struct gw_control_sa_list),
				AFTER_CONFIGURE},
	[GW_MESSAGE_SA_RESERVE] = {gw_request_sa_reserve, PLAIN, AFTER_CONFIGURE},
	[GW_MESSAGE_SA_MOVE] = {gw_request_sa_move, PLAIN, AFTER_CONFIGURE},
	[GW_MESSAGE_SA_PATH_MTU] = {gw_request_sa_path_mtu, PLAIN, AFTER_CONFIGURE},
	[GW_MESSAGE_TUNNEL_SET] = {gw_request_tunnel_set, PLAIN, AFTER_CONFIGURE},
	[GW_MESSAGE_POLICY_SET] = {gw_policy_set, PLAIN, AFTER_CONFIGURE},
	[GW_MESSAGE_POLICY_REMOVE] = {gw_policy_remove, PLAIN, AFTER_CONFIGURE},
	[GW_MESSAGE_ROUTE_SET] = {gw_route_set, PLAIN, AFTER_CONFIGURE},
	[GW_MESSAGE_ROUTE_REMOVE] = {gw_route_remove, PLAIN, AFTER_CONFIGURE},
	[GW_MESSAGE_NEIGHBOUR_SET] = {gw_neighbour_set, PLAIN, AFTER_CONFIGURE},
	[GW_MESSAGE_NEIGHBOUR_REMOVE] = {gw_neighbour_remove, PLAIN, AFTER_CONFIGURE},
	[GW_MESSAGE_COMMIT] = {gw_commit, PLAIN, AFTER_CONFIGURE},
	[GW_MESSAGE_CLEAR] = {gw_clear, PLAIN, AFTER_CONFIGURE},
	[GW_MESSAGE_COUNTERS_READ] = {counters_read, sizeof(struct gw_control_counters),
				      AFTER_CONFIGURE},
	[GW_MESSAGE_SHUT_DOWN] = {shut_down, PLAIN, AFTER_HELLO},
#undef PLAIN
};

static int run(struct gw_control *control, const void *message, size_t bytes,
	       union gw_any_reply *reply)
{
	const struct gw_control_header *header = message;
	int error = gw_check_message(message, bytes);

	if (error != GW_OK)
		return gw_refuse(reply, error, "the message is not what its type promises");
	if (requests[header->type].stage > BEFORE_HELLO && !control->is_greeted)
		return gw_refuse(reply, GW_E_ORDER, "HELLO comes first");
	if (requests[header->type].stage == AFTER_CONFIGURE && control->daemon.thread_count == 0)
		return gw_refuse(reply, GW_E_ORDER, "CONFIGURE comes first");
	return requests[header->type].handle(control, message, reply);
}

size_t gw_control_handle(struct gw_control *control, const void *message, size_t bytes,
			 union gw_any_reply *reply)
{
	struct gw_control_header header = {0};
	size_t reply_bytes = sizeof(struct gw_control_reply);
	int error;

	memcpy(&header, message, bytes < sizeof(header) ? bytes : sizeof(header));
	memset(reply, 0, sizeof(*reply));
	error = run(control, message, bytes, reply);
	/* A known request has its reply whole, also when it is refused. */
	if (header.type < GW_MESSAGE_COUNT && requests[header.type].handle)
		reply_bytes = requests[header.type].reply_bytes;
	reply->reply.header = (struct gw_control_header){
		.version = GW_CONTROL_VERSION,
		.type = header.type | GW_REPLY,
		.bytes = (uint32_t)reply_bytes,
		.request = header.request,
	};
	reply->reply.error = error;
	return reply_bytes;
}

/* --- life */

int gw_control_init(struct gw_control *control)
{
	struct timespec now;

	memset(control, 0, sizeof(*control));
	control->sas.compare = gw_compare_sas;
	gw_entries_init(control);
	for (int i = 0; i < GW_MAX_DESCRIPTORS; i++)
		control->descriptors[i] = -1;
	for (int i = 0; i < GW_MAX_WORKERS; i++)
		control->daemon.inherited_pools[i] = -1;
	atomic_store(&control->daemon.generation, 1);
	if (getrandom(control->life, sizeof(control->life), 0) != sizeof(control->life))
		return -errno;
	clock_gettime(CLOCK_MONOTONIC, &now);
	control->started_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	control->daemon.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return control->daemon.event_fd < 0 ? -errno : 0;
}

void gw_control_forget(struct gw_control *control)
{
	control->is_greeted = false;
	atomic_store(&control->daemon.has_agent, false);
	gw_entries_revert(control);
}

void gw_control_vanish(struct gw_control *control)
{
	struct gw_daemon *daemon = &control->daemon;

	for (uint32_t i = 0; i < daemon->thread_count; i++)
		gw_worker_free(daemon->threads[i]->engine);
	gw_sas_clear(control);
	_exit(EXIT_SUCCESS);
}

void gw_control_end(struct gw_control *control)
{
	struct gw_daemon *daemon = &control->daemon;

	for (uint32_t i = 1; daemon->tunnels && i <= daemon->config.tunnels; i++)
		free((void *)(uintptr_t)atomic_load(&daemon->tunnels[i]));
	stop_threads(control);
	gw_sas_clear(control);
	gw_entries_clear(control);
	close(daemon->event_fd);
	gw_wipe(control, sizeof(*control));
}
