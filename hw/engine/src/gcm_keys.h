/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a packet reads of ipsec-mb's GCM keys, in the layout of its code for VAES and AVX-512: all
 * round keys, then as many powers of the hash key as there are blocks, counted from the end.
 *
 *   | round keys 240 B | H^48 | H^47 | ...                                 | H^3 | H^2 | H^1 |
 *   |<- 4 lines ----->|                             read for 64 bytes ->  |<-   1 or 2    ->|
 *
 * Other code has eight powers, at the front: nothing but fetching ahead in vain comes of that.
 */
#ifndef GW_GCM_KEYS_H
#define GW_GCM_KEYS_H

#include <intel-ipsec-mb.h>

#include "sa.h"

#define GW_GCM_POWERS      48u
#define GW_GCM_KEY_LINES   ((sizeof(struct gcm_key_data) + GW_LINE - 1) / GW_LINE)
#define GW_ROUND_KEY_LINES 4u

/* Return the first line after the round keys that a text of so many bytes needs. */
static inline size_t gw_first_power_line(uint32_t text_bytes)
{
	size_t powers = ((size_t)text_bytes + 15) / 16;
	size_t line;

	if (powers > GW_GCM_POWERS)
		powers = GW_GCM_POWERS;
	line = (sizeof(struct gcm_key_data) - powers * 16) / GW_LINE;
	return line < GW_ROUND_KEY_LINES ? GW_ROUND_KEY_LINES : line;
}

#endif
