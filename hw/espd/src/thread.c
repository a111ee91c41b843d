/* SPDX-License-Identifier: Apache-2.0 */
#include "thread.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "bytes.h"
#include "inbound.h"
#include "outbound.h"

/* So many rounds without a packet, and a thread sleeps until one comes. */
#define IDLE_ROUNDS    64u
#define SLEEP_MS       500
#define EVENT_SLOTS    1024u
#define EVENTS_DRAINED 32u
#define NS_PER_SECOND  1000000000ull
/* Packets that are fetched into the cache ahead of the one at hand. */
#define PREFETCHED 8u
#define CACHE_LINE 64

static uint64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

bool gw_limit_allows(struct gw_limit *limit, uint64_t now_ns, uint32_t per_second)
{
	if (now_ns - limit->since_ns >= NS_PER_SECOND) {
		limit->since_ns = now_ns;
		limit->used = 0;
	}
	if (limit->used >= per_second) {
		limit->suppressed++;
		return false;
	}
	limit->used++;
	return true;
}

/* --- events */

bool gw_thread_tell(struct gw_thread *thread, union gw_any_event *event, uint16_t type,
		    uint32_t bytes)
{
	union gw_any_event *slot = gw_ring_writable(&thread->events);

	if (!slot)
		return false;
	event->header = (struct gw_control_header){
		.version = GW_CONTROL_VERSION,
		.type = type,
		.bytes = bytes,
	};
	memcpy(slot, event, sizeof(*slot));
	gw_ring_put(&thread->events);
	eventfd_write(thread->daemon->event_fd, 1);
	return true;
}

/* Take events of SAs from the engine as long as there is room for all that one call may bring. */
static void pass_on_events(struct gw_thread *thread)
{
	struct gw_event events[EVENTS_DRAINED];
	size_t count;

	if (gw_ring_used(&thread->events) + EVENTS_DRAINED > EVENT_SLOTS)
		return;
	count = gw_worker_drain_events(thread->engine, events, EVENTS_DRAINED);
	for (size_t i = 0; i < count; i++) {
		union gw_any_event event = {.sa = {.event = events[i]}};
		struct gw_sa_usage usage = {0};

		gw_sa_read(thread->engine, events[i].ref, &usage);
		event.sa.sequence = usage.sequence;
		gw_thread_tell(thread, &event, GW_MESSAGE_EVENT_SA, sizeof(event.sa));
	}
}

/* --- packets */

/*
 * Fetch what is read and written of a packet first: its headers, and the line before them, where
 * those of ESP will be. Whoever received it wrote them on another CPU.
 */
static void prefetch(const struct gw_packet *packet)
{
	__builtin_prefetch(packet->data - CACHE_LINE, 1);
	__builtin_prefetch(packet->data, 1);
	__builtin_prefetch(packet->data + CACHE_LINE, 1);
}

static void receive(struct gw_thread *thread, struct gw_port *port, uint32_t count)
{
	for (uint32_t i = 0; i < count && i < PREFETCHED; i++)
		prefetch(&thread->received[i]);
	for (uint32_t i = 0; i < count; i++) {
		struct gw_packet *packet = &thread->received[i];

		if (i + PREFETCHED < count)
			prefetch(&thread->received[i + PREFETCHED]);
		packet->reserved = (uint16_t)port->device.device;
		gw_receive(thread, port, packet);
	}
}

static uint32_t poll_ports(struct gw_thread *thread)
{
	const struct gw_control_configure *config = &thread->daemon->config;
	uint32_t total = 0;

	for (uint32_t i = 0; i < thread->port_count; i++) {
		struct gw_port *port = thread->ports[i];
		uint32_t count;

		if (!port->receiver || gw_port_rests(port, thread->round + i))
			continue;
		count = port->receiver->method->receive(port->receiver, thread->received,
							port->batch);
		if (count) {
			receive(thread, port, count);
			gw_open_all(thread);
			gw_seal_all(thread);
		}
		if (count)
			port->idle_rounds = 0;
		else if (port->idle_rounds < GW_MANY_ROUNDS)
			port->idle_rounds++;
		port->batch = gw_port_next_batch(port->batch, count, config->batch_low,
						 config->batch_high);
		total += count;
	}
	return total;
}

static bool take_over(struct gw_thread *thread, const struct gw_handover *given)
{
	struct gw_pool *pool = &thread->pool;
	uint32_t frame = gw_pool_take(pool);
	struct gw_packet packet;

	if (frame == GW_NO_FRAME)
		return false;
	memcpy(gw_frame_start(pool, frame) + GW_FRAME_DATA, given + 1, given->length);
	gw_frame_describe(pool, frame, GW_FRAME_DATA, given->length, &packet);
	packet.reserved = given->device;
	if (given->inbound)
		gw_open_later(thread, &packet);
	else
		gw_seal_later(thread, &packet, given->ref);
	return true;
}

static uint32_t poll_rings(struct gw_thread *thread)
{
	uint32_t total = 0;

	for (uint32_t i = 0; i < thread->daemon->config.workers; i++) {
		struct gw_ring *ring = &thread->from[i];
		const struct gw_handover *given;

		for (uint32_t taken = 0; taken < GW_BATCH; taken++) {
			given = ring->memory ? gw_ring_readable(ring) : NULL;
			if (!given || !take_over(thread, given))
				break;
			gw_ring_take(ring);
			total++;
		}
	}
	if (total) {
		gw_open_all(thread);
		gw_seal_all(thread);
	}
	return total;
}

/* --- the loop */

static bool obey(struct gw_thread *thread)
{
	struct gw_command *command = atomic_load_explicit(&thread->command, memory_order_acquire);

	if (!command)
		return false;
	atomic_store_explicit(&thread->command, NULL, memory_order_relaxed);
	command->run(thread, command->argument);
	sem_post(&command->done);
	return true;
}

static bool has_work(const struct gw_thread *thread)
{
	if (atomic_load(&thread->command))
		return true;
	for (uint32_t i = 0; i < thread->daemon->config.workers; i++)
		if (thread->from[i].memory && gw_ring_readable(&thread->from[i]))
			return true;
	return false;
}

static void sleep_until_something(struct gw_thread *thread)
{
	struct pollfd fds[GW_MAX_PORTS + 1] = {{.fd = thread->wake_fd, .events = POLLIN}};
	unsigned int count = 1;
	eventfd_t woken;

	for (uint32_t i = 0; i < thread->port_count; i++) {
		const struct gw_io *io = thread->ports[i]->receiver;

		if (io)
			count += io->method->descriptors(io, fds + count, GW_MAX_PORTS + 1 - count);
	}
	/* Whoever gives us something looks at `sleeps` afterwards: one of both sees the other. */
	atomic_store(&thread->sleeps, true);
	if (!has_work(thread))
		poll(fds, count, SLEEP_MS);
	atomic_store(&thread->sleeps, false);
	if (fds[0].revents & POLLIN)
		eventfd_read(thread->wake_fd, &woken);
	for (uint32_t i = 0; i < thread->port_count; i++)
		thread->ports[i]->idle_rounds = 0;
}

static void begin_round(struct gw_thread *thread)
{
	thread->now_ns = monotonic_ns();
	thread->round++;
	/* The generation first: what is found in older tables is then never taken for newer. */
	thread->generation =
		atomic_load_explicit(&thread->daemon->generation, memory_order_acquire);
	thread->tables = atomic_load_explicit(&thread->daemon->tables, memory_order_acquire);
}

static void *run(void *argument)
{
	struct gw_thread *thread = argument;
	uint32_t idle = 0;

	while (!thread->ends) {
		uint32_t count;

		begin_round(thread);
		if (obey(thread))
			continue;
		count = poll_ports(thread) + poll_rings(thread);
		if (thread->hold.count)
			gw_release_held(thread);
		for (uint32_t i = 0; i < thread->port_count; i++) {
			gw_port_flush(thread, thread->ports[i]);
			gw_port_check(thread, thread->ports[i]);
		}
		pass_on_events(thread);
		thread->counts.rounds += count != 0;
		idle = count ? 0 : idle + 1;
		if (idle > IDLE_ROUNDS && !thread->daemon->config.busy_poll)
			sleep_until_something(thread);
	}
	return NULL;
}

/* --- life */

static enum gw_error make_engine(struct gw_thread *thread)
{
	const struct gw_control_configure *config = &thread->daemon->config;
	struct gw_worker_config engine = {
		.inbound_bits = config->inbound_bits,
		.outbound_sas = config->outbound_sas,
		.crypto = config->crypto,
		.cold_packets = 1,
	};
	enum gw_error error = GW_E_MEMORY;

	if (getrandom(engine.seed, sizeof(engine.seed), 0) != sizeof(engine.seed))
		return GW_E_CRYPTO;
	thread->engine = gw_worker_new(&engine, &error);
	gw_wipe(&engine, sizeof(engine));
	return thread->engine ? GW_OK : error;
}

static bool make_rings(struct gw_thread *thread)
{
	const struct gw_control_configure *config = &thread->daemon->config;

	thread->from = aligned_alloc(64, config->workers * sizeof(*thread->from));
	if (!thread->from)
		return false;
	memset(thread->from, 0, config->workers * sizeof(*thread->from));
	for (uint16_t i = 0; i < config->workers; i++)
		if (i != thread->number &&
		    !gw_ring_init(&thread->from[i], GW_RING_SLOTS, config->frame_bytes))
			return false;
	return gw_ring_init(&thread->events, EVENT_SLOTS, sizeof(union gw_any_event));
}

/* Where the agent gave live frames, they come out of the memory of a map. */
static int make_pool(struct gw_thread *thread)
{
	const struct gw_control_configure *config = &thread->daemon->config;

	int *inherited = &thread->daemon->inherited_pools[thread->number];
	int error;

	if (thread->live_fds[0] < 0 && *inherited >= 0) {
		error = gw_pool_adopt(&thread->pool, *inherited, config->frames,
				      config->frame_bytes);
		if (!error)
			*inherited = -1;
		return error;
	}
	if (thread->live_fds[0] < 0)
		return gw_pool_init(&thread->pool, config->frames, config->frame_bytes);
	thread->live = (struct gw_live){thread->live_fds[0], thread->live_fds[1]};
	return gw_pool_init_map(&thread->pool, thread->live_fds[2], config->frames,
				config->frame_bytes);
}

static void free_thread(struct gw_thread *thread)
{
	for (uint16_t i = 0; thread->from && i < thread->daemon->config.workers; i++)
		gw_ring_clear(&thread->from[i]);
	gw_ring_clear(&thread->events);
	gw_worker_free(thread->engine);
	gw_pool_clear(&thread->pool);
	for (int i = 0; i < GW_LIVE_DESCRIPTORS; i++)
		if (thread->live_fds[i] >= 0)
			close(thread->live_fds[i]);
	if (thread->wake_fd >= 0)
		close(thread->wake_fd);
	free(thread->from);
	free(thread->reassembly);
	free(thread->mtus);
	free(thread);
}

static int pin_and_run(struct gw_thread *thread)
{
	uint16_t cpu = thread->daemon->config.cpus[thread->number];
	pthread_attr_t attributes;
	char name[GW_NAME_BYTES];
	cpu_set_t set;
	int error;

	pthread_attr_init(&attributes);
	CPU_ZERO(&set);
	if (cpu != GW_ANY_CPU) {
		CPU_SET(cpu, &set);
		pthread_attr_setaffinity_np(&attributes, sizeof(set), &set);
	}
	error = pthread_create(&thread->id, &attributes, run, thread);
	pthread_attr_destroy(&attributes);
	if (error == 0) {
		snprintf(name, sizeof(name), "espd-%u", thread->number);
		pthread_setname_np(thread->id, name);
	}
	return error;
}

struct gw_thread *gw_thread_start(struct gw_daemon *daemon, uint16_t number, const int *live,
				  enum gw_error *error)
{
	const struct gw_control_configure *config = &daemon->config;
	struct gw_thread *thread = aligned_alloc(64, (sizeof(*thread) + 63) / 64 * 64);

	*error = GW_E_MEMORY;
	if (!thread)
		return NULL;
	memset(thread, 0, sizeof(*thread));
	thread->daemon = daemon;
	thread->number = number;
	thread->now_ns = monotonic_ns();
	for (int i = 0; i < GW_LIVE_DESCRIPTORS; i++)
		thread->live_fds[i] = live ? live[i] : -1;
	thread->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	thread->mtus = calloc((size_t)config->outbound_sas + 1, sizeof(*thread->mtus));
	if (thread->wake_fd >= 0 && thread->mtus && make_rings(thread) && make_pool(thread) == 0)
		*error = make_engine(thread);
	if (*error == GW_OK && pin_and_run(thread) != 0)
		*error = GW_E_INVALID; /* no such CPU, or it is not ours */
	if (*error == GW_OK)
		return thread;
	memset(thread->live_fds, 0xff, sizeof(thread->live_fds)); /* still the caller's */
	free_thread(thread);
	return NULL;
}

static void close_all(struct gw_thread *thread, void *argument)
{
	(void)argument;
	gw_thread_close_device(thread, 0);
}

static void end(struct gw_thread *thread, void *argument)
{
	(void)argument;
	thread->ends = true;
}

void gw_threads_stop(struct gw_daemon *daemon)
{
	/* What has no device hands nothing over: not to a thread that is gone. */
	for (uint32_t i = 0; i < daemon->thread_count; i++)
		gw_thread_call(daemon->threads[i], close_all, NULL);
	while (daemon->thread_count) {
		struct gw_thread *thread = daemon->threads[--daemon->thread_count];

		gw_thread_call(thread, end, NULL);
		pthread_join(thread->id, NULL);
		free_thread(thread);
	}
}

/* --- ports */

/* Find, anew, the port to send to a device by: one that owns its queue, if there is any. */
static void choose_ports(struct gw_thread *thread)
{
	memset(thread->by_device, 0, sizeof(thread->by_device));
	thread->slow_path = thread->fallback = NULL;
	for (uint32_t i = 0; i < thread->port_count; i++) {
		struct gw_port *port = thread->ports[i];
		struct gw_port **place = &thread->by_device[port->device.device];

		if (!*place)
			*place = port;
		if (port->device.flags & GW_DEVICE_SLOW_PATH && !thread->slow_path)
			thread->slow_path = port;
		if (port->device.flags & GW_DEVICE_FALLBACK && !thread->fallback)
			thread->fallback = port;
	}
}

bool gw_thread_add_port(struct gw_thread *thread, struct gw_port *port)
{
	if (thread->port_count == GW_MAX_PORTS)
		return false;
	thread->ports[thread->port_count++] = port;
	choose_ports(thread);
	return true;
}

void gw_thread_close_device(struct gw_thread *thread, uint32_t device)
{
	uint32_t kept = 0, count = thread->port_count;

	for (uint32_t i = 0; i < count; i++) {
		struct gw_port *port = thread->ports[i];

		if (device == 0 || port->device.device == device)
			gw_port_close(thread, port);
		else
			thread->ports[kept++] = port;
	}
	thread->port_count = kept;
	choose_ports(thread);
}

void gw_thread_empty_rings(struct gw_thread *thread)
{
	while (poll_rings(thread))
		;
	for (uint32_t i = 0; i < thread->port_count; i++)
		gw_port_flush(thread, thread->ports[i]);
}

/* --- from other threads */

void gw_thread_wake(struct gw_thread *thread)
{
	if (atomic_load(&thread->sleeps))
		eventfd_write(thread->wake_fd, 1);
}

void gw_thread_call(struct gw_thread *thread, void (*run_this)(struct gw_thread *, void *),
		    void *argument)
{
	struct gw_command command = {.run = run_this, .argument = argument};

	sem_init(&command.done, 0, 0);
	atomic_store(&thread->command, &command);
	gw_thread_wake(thread);
	while (sem_wait(&command.done) != 0 && errno == EINTR)
		;
	sem_destroy(&command.done);
}

static void stand_still(struct gw_thread *thread, void *argument)
{
	struct gw_parking *parking = argument;

	(void)thread;
	sem_post(&parking->parked);
	while (sem_wait(&parking->leave) != 0 && errno == EINTR)
		;
}

void gw_thread_park(struct gw_thread *thread, struct gw_parking *parking)
{
	parking->command = (struct gw_command){.run = stand_still, .argument = parking};
	sem_init(&parking->command.done, 0, 0);
	sem_init(&parking->parked, 0, 0);
	sem_init(&parking->leave, 0, 0);
	atomic_store(&thread->command, &parking->command);
	gw_thread_wake(thread);
	while (sem_wait(&parking->parked) != 0 && errno == EINTR)
		;
}

void gw_thread_unpark(struct gw_parking *parking)
{
	sem_post(&parking->leave);
	while (sem_wait(&parking->command.done) != 0 && errno == EINTR)
		;
	sem_destroy(&parking->command.done);
	sem_destroy(&parking->parked);
	sem_destroy(&parking->leave);
}

uint32_t gw_thread_drain(struct gw_thread *thread)
{
	uint32_t count;

	thread->pool.is_draining = true;
	begin_round(thread);
	count = poll_ports(thread) + poll_rings(thread);
	for (uint32_t i = 0; i < thread->port_count; i++) {
		struct gw_io_counters counters;

		gw_port_flush(thread, thread->ports[i]);
		/* Whatever a sender still holds back goes out before it is counted. */
		gw_port_counters(thread->ports[i], &counters);
	}
	pass_on_events(thread);
	thread->pool.is_draining = false;
	return count;
}

static void do_nothing(struct gw_thread *thread, void *argument)
{
	(void)thread;
	(void)argument;
}

void gw_quiesce(struct gw_daemon *daemon)
{
	for (uint32_t i = 0; i < daemon->thread_count; i++)
		gw_thread_call(daemon->threads[i], do_nothing, NULL);
}
