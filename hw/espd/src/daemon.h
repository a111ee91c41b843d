/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all threads of espd share: tables that the control thread publishes whole, and the threads
 * themselves.
 *
 * Who publishes a new table waits until every thread has been in its loop once (gw_quiesce), and
 * frees the old one then. A thread reads each pointer once a round.
 */
#ifndef GW_DAEMON_H
#define GW_DAEMON_H

#include <stdatomic.h>

#include "route.h"
#include "spd.h"

struct gw_thread;

/* The SPD and where packets go. What a COMMIT leaves as it was goes on in the next tables. */
struct gw_tables {
	const struct gw_spd *spd;
	const struct gw_routes *routes;
	const struct gw_neighbours *neighbours;
};

/* The outbound SAs of one tunnel, the newest first. */
struct gw_tunnel_sas {
	uint32_t count;
	struct {
		uint32_t ref; /* in its owner's engine */
		uint16_t worker;
		const struct gw_selector_set *selectors; /* lives as long as the SA */
	} sas[GW_MAX_TUNNEL_SAS];
};

struct gw_daemon {
	_Atomic(const struct gw_tables *) tables;
	_Atomic(const struct gw_tunnel_sas *) *tunnels; /* [1 .. config.tunnels]; NULL: none */
	/* Of the inbound SA at an index: its SPI, the worker that owns it, and where it delivers. */
	_Atomic uint64_t *owners;
	_Atomic uint64_t generation; /* counts changes of tables, tunnels and outbound SAs */
	uint32_t inbound_mask;
	atomic_bool has_agent; /* one said HELLO, and is still there */
	struct gw_control_configure config;
	uint32_t thread_count; /* 0: not configured yet; the control thread's */
	struct gw_thread *threads[GW_MAX_WORKERS];
	int event_fd; /* wakes the control thread: some thread has something to tell */
	/* Of workers that are about to be started: the pool's memory that another process had; or -1. */
	int inherited_pools[GW_MAX_WORKERS];
};

/* An entry of gw_daemon.owners; 0 where there is no SA. */
static inline uint64_t gw_owner_pack(uint32_t spi, uint32_t worker, uint32_t device)
{
	return (uint64_t)spi << 32 | (uint64_t)device << 16 | (worker + 1);
}

static inline uint32_t gw_owner_spi(uint64_t owner)
{
	return (uint32_t)(owner >> 32);
}

static inline uint32_t gw_owner_worker(uint64_t owner)
{
	return (uint32_t)(owner & 0xffff) - 1;
}

static inline uint32_t gw_owner_device(uint64_t owner)
{
	return (uint32_t)(owner >> 16) & 0xffff;
}

static inline uint64_t gw_owner_of(const struct gw_daemon *daemon, uint32_t spi)
{
	return atomic_load_explicit(&daemon->owners[spi & daemon->inbound_mask],
				    memory_order_acquire);
}

#endif
