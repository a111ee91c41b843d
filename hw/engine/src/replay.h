/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The anti-replay window and extended sequence numbers (RFC 4303 §3.4.3, Appendix A; RFC 6479).
 *
 * The window is a ring of 64-bit blocks. Sliding it zeroes whole blocks and shifts no bits:
 *
 *    block:      3          0          1          2        (ring of 4 blocks: window up to 192)
 *           |..........|x.xxx.xxx|xxxxx..x..|x.........|
 *                        ^ left edge           ^ highest, the right edge
 *
 * gw_replay_check before authentication has no effect at all. gw_replay_commit comes only after it,
 * and looks again: of two copies of a packet in one burst, both pass the check.
 */
#ifndef GW_REPLAY_H
#define GW_REPLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "bytes.h"
#include "gw_drop_reasons.h"

struct gw_replay {
	uint64_t *blocks;
	uint32_t mask; /* blocks less one */
	uint32_t size; /* packets; 0: no check */
};

/* Infer the high half of a sequence number (RFC 4303 Appendix A2.2); false where there is none. */
static inline bool gw_replay_reconstruct(uint64_t highest, uint32_t size, uint32_t low,
					 uint64_t *sequence)
{
	uint32_t top_low = (uint32_t)highest;
	uint64_t high = highest >> 32;
	uint32_t bottom_low = top_low - size + 1;

	if (top_low >= size - 1) {
		/* Case A: the window lies within one subspace. */
		if (low < bottom_low && ++high > UINT32_MAX)
			return false;
	} else if (low >= bottom_low) {
		/* Case B: it spans two; before the first there is none. */
		if (high-- == 0)
			return false;
	}
	*sequence = high << 32 | low;
	return true;
}

/* Say whether a full sequence number may be new. */
static inline enum gw_drop_reason gw_replay_test(const struct gw_replay *window, uint64_t highest,
						 uint64_t sequence)
{
	if (window->size == 0 || sequence > highest)
		return GW_DROP_NONE;
	/* The first number is 1 (RFC 4303 §3.3.3): 0 is left of every window. */
	if (sequence == 0 || highest - sequence >= window->size)
		return GW_DROP_REPLAY_WINDOW;
	if (window->blocks[sequence / 64 & window->mask] >> sequence % 64 & 1)
		return GW_DROP_REPLAY;
	return GW_DROP_NONE;
}

/* The check before authentication: from the 32 bits of a packet to the full number. */
static inline enum gw_drop_reason gw_replay_check(const struct gw_replay *window, uint64_t highest,
						  bool esn, uint32_t low, uint64_t *sequence)
{
	*sequence = low;
	if (esn && !gw_replay_reconstruct(highest, window->size, low, sequence))
		return GW_DROP_REPLAY_WINDOW;
	if (window->size != 0 && *sequence == 0)
		return GW_DROP_REPLAY_WINDOW;
	return gw_replay_test(window, highest, *sequence);
}

/* Remember an authentic number, unless another packet of the burst was quicker. */
static inline enum gw_drop_reason gw_replay_commit(const struct gw_replay *window,
						   uint64_t *highest, uint64_t sequence)
{
	enum gw_drop_reason reason = gw_replay_test(window, *highest, sequence);

	if (GW_UNLIKELY(reason != GW_DROP_NONE))
		return reason;
	if (sequence > *highest) {
		uint64_t entered = sequence / 64;
		uint64_t block = *highest / 64;

		/* Zero each block that is entered anew, at most the whole ring. */
		if (entered - block > window->mask)
			block = entered - window->mask - 1;
		while (block < entered)
			window->blocks[++block & window->mask] = 0;
		*highest = sequence;
	}
	window->blocks[sequence / 64 & window->mask] |= 1ull << sequence % 64;
	return GW_DROP_NONE;
}

#endif
