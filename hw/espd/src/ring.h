/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring between two threads: one puts, one takes, nothing is locked. Slots are of a fixed size;
 * what is in them is copied, so that no frame of one thread's pool ever belongs to another thread.
 */
#ifndef GW_RING_H
#define GW_RING_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

struct gw_ring {
	/* Each end writes its own line. */
	alignas(64) _Atomic uint32_t head; /* next to be put */
	alignas(64) _Atomic uint32_t tail; /* next to be taken */
	alignas(64) uint32_t slots;        /* a power of two */
	uint32_t slot_bytes;
	uint8_t *memory; /* not touched until used */
};

static inline bool gw_ring_init(struct gw_ring *ring, uint32_t slots, uint32_t slot_bytes)
{
	*ring = (struct gw_ring){.slots = slots, .slot_bytes = slot_bytes};
	ring->memory = mmap(NULL, (size_t)slots * slot_bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ring->memory == MAP_FAILED)
		ring->memory = NULL;
	return ring->memory != NULL;
}

static inline void gw_ring_clear(struct gw_ring *ring)
{
	if (ring->memory)
		munmap(ring->memory, (size_t)ring->slots * ring->slot_bytes);
	ring->memory = NULL;
}

/* The slot to write, or NULL: the ring is full. Nobody sees it before gw_ring_put. */
static inline void *gw_ring_writable(const struct gw_ring *ring)
{
	uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
	uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);

	if (head - tail == ring->slots)
		return NULL;
	return ring->memory + (size_t)(head & (ring->slots - 1)) * ring->slot_bytes;
}

static inline void gw_ring_put(struct gw_ring *ring)
{
	uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

	atomic_store_explicit(&ring->head, head + 1, memory_order_release);
}

/* The slot to read, or NULL: the ring is empty. It stays until gw_ring_take. */
static inline void *gw_ring_readable(const struct gw_ring *ring)
{
	uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
	uint32_t head = atomic_load_explicit(&ring->head, memory_order_acquire);

	if (head == tail)
		return NULL;
	return ring->memory + (size_t)(tail & (ring->slots - 1)) * ring->slot_bytes;
}

static inline void gw_ring_take(struct gw_ring *ring)
{
	uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);

	atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
}

static inline uint32_t gw_ring_used(const struct gw_ring *ring)
{
	return atomic_load_explicit(&ring->head, memory_order_acquire) -
	       atomic_load_explicit(&ring->tail, memory_order_acquire);
}

#endif
