/* SPDX-License-Identifier: Apache-2.0 */
#include "slab.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "bytes.h"

#define LINE        64u
#define BLOCK_BYTES (2u << 20)

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ONE_BY_ONE
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define ONE_BY_ONE
#endif

struct gw_slab_piece {
	struct gw_slab_piece *next;
};

static size_t stride(const struct gw_slab *slab)
{
	return (slab->bytes + LINE - 1) / LINE * LINE;
}

#ifdef ONE_BY_ONE /* so that the sanitizer knows where a piece ends, and when */

void *gw_slab_take(struct gw_slab *slab)
{
	void *piece = aligned_alloc(LINE, stride(slab));

	if (piece)
		memset(piece, 0, stride(slab));
	return piece;
}

void gw_slab_give(struct gw_slab *slab, void *piece)
{
	gw_wipe(piece, stride(slab));
	free(piece);
}

void gw_slab_end(struct gw_slab *slab)
{
	(void)slab;
}

#else

static void add_block(struct gw_slab *slab)
{
	uint8_t *block = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);

	if (!block)
		return;
	/* Where the kernel has none, small pages do. */
	(void)madvise(block, BLOCK_BYTES, MADV_HUGEPAGE);
	memcpy(block, &slab->blocks, sizeof(slab->blocks));
	slab->blocks = block;
	/* From the end, so that pieces are taken in the order in which they lie. */
	for (size_t left = (BLOCK_BYTES - LINE) / stride(slab); left-- > 0;) {
		struct gw_slab_piece *piece = (void *)(block + LINE + left * stride(slab));

		piece->next = slab->free;
		slab->free = piece;
	}
}

void *gw_slab_take(struct gw_slab *slab)
{
	struct gw_slab_piece *piece;

	if (!slab->free)
		add_block(slab);
	piece = slab->free;
	if (!piece)
		return NULL;
	slab->free = piece->next;
	memset(piece, 0, stride(slab));
	return piece;
}

void gw_slab_give(struct gw_slab *slab, void *piece)
{
	struct gw_slab_piece *given = piece;

	gw_wipe(piece, stride(slab));
	given->next = slab->free;
	slab->free = given;
}

void gw_slab_end(struct gw_slab *slab)
{
	while (slab->blocks) {
		void *block = slab->blocks;

		memcpy(&slab->blocks, block, sizeof(slab->blocks));
		free(block);
	}
	slab->free = NULL;
}

#endif
