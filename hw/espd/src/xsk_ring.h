/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rings that an AF_XDP socket shares with the kernel: one side writes entries and moves the
 * producer, the other reads them and moves the consumer. Both count up for ever and wrap at 2^32;
 * an entry's place is its number modulo the size, a power of two.
 *
 *   fill, transmit        we produce
 *   receive, completion   we consume
 *
 * What the other side has done is seen with acquire, what we have done is shown with release.
 */
#ifndef GW_XSK_RING_H
#define GW_XSK_RING_H

#include <linux/if_xdp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gw_xsk_ring {
	uint32_t *producer;
	uint32_t *consumer;
	uint32_t *flags;
	void *entries; /* uint64_t of fill and completion, struct xdp_desc of the others */
	uint32_t size;
	uint32_t ours;   /* how far our side is */
	uint32_t theirs; /* how far the other was when we looked */
	void *mapping;
	size_t mapping_bytes;
};

/* How many entries can be produced; looks again only when fewer than `wanted` seem free. */
static inline uint32_t gw_ring_room(struct gw_xsk_ring *ring, uint32_t wanted)
{
	if (ring->size - (ring->ours - ring->theirs) < wanted)
		ring->theirs = __atomic_load_n(ring->consumer, __ATOMIC_ACQUIRE);
	return ring->size - (ring->ours - ring->theirs);
}

static inline void gw_ring_produced(struct gw_xsk_ring *ring)
{
	__atomic_store_n(ring->producer, ring->ours, __ATOMIC_RELEASE);
}

/* How many entries the kernel has not yet taken of those that we produced. */
static inline uint32_t gw_ring_waiting(struct gw_xsk_ring *ring)
{
	ring->theirs = __atomic_load_n(ring->consumer, __ATOMIC_ACQUIRE);
	return ring->ours - ring->theirs;
}

/* How many entries can be consumed; looks again only when fewer than `wanted` seem to be there. */
static inline uint32_t gw_ring_ready(struct gw_xsk_ring *ring, uint32_t wanted)
{
	if (ring->theirs - ring->ours < wanted)
		ring->theirs = __atomic_load_n(ring->producer, __ATOMIC_ACQUIRE);
	return ring->theirs - ring->ours;
}

static inline void gw_ring_consumed(struct gw_xsk_ring *ring)
{
	__atomic_store_n(ring->consumer, ring->ours, __ATOMIC_RELEASE);
}

static inline uint64_t *gw_ring_address(const struct gw_xsk_ring *ring, uint32_t number)
{
	return (uint64_t *)ring->entries + (number & (ring->size - 1));
}

static inline struct xdp_desc *gw_ring_descriptor(const struct gw_xsk_ring *ring, uint32_t number)
{
	return (struct xdp_desc *)ring->entries + (number & (ring->size - 1));
}

static inline bool gw_ring_needs_wakeup(const struct gw_xsk_ring *ring)
{
	return __atomic_load_n(ring->flags, __ATOMIC_RELAXED) & XDP_RING_NEED_WAKEUP;
}

#endif
