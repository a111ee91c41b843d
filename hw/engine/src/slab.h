/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory for what there is one of per SA, dense and on huge pages: with thousands of SAs it is the
 * page tables that are missed, not the cache.
 */
#ifndef GW_SLAB_H
#define GW_SLAB_H

#include <stddef.h>

struct gw_slab_piece;

/* Pieces of one size. Start it as {.bytes = size}. */
struct gw_slab {
	size_t bytes;
	struct gw_slab_piece *free;
	void *blocks; /* each begins with a pointer to the next */
};

/**
 * gw_slab_take() - return a piece: zeroed, and aligned to a cache line.
 * @slab: of pieces of that size.
 *
 * Return: NULL without memory.
 */
void *gw_slab_take(struct gw_slab *slab);

/**
 * gw_slab_give() - wipe a piece and keep it for the next.
 * @slab: that it is from.
 * @piece: not to be used any more.
 */
void gw_slab_give(struct gw_slab *slab, void *piece);

/**
 * gw_slab_end() - free all memory.
 * @slab: whose pieces are all given back.
 */
void gw_slab_end(struct gw_slab *slab);

#endif
