/* SPDX-License-Identifier: Apache-2.0 */
#include "io.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define MIN_FRAME_BYTES 2048u
#define MAX_FRAME_BYTES (1u << 16)

/* AF_XDP and live frames are there where they are linked in. */
#pragma weak gw_io_xdp
#pragma weak gw_io_xdp_copy
#pragma weak gw_io_live

int gw_pool_init(struct gw_pool *pool, uint32_t frames, uint32_t frame_bytes)
{
	if (frames == 0 || frame_bytes < MIN_FRAME_BYTES || frame_bytes > MAX_FRAME_BYTES ||
	    (frame_bytes & (frame_bytes - 1)) != 0)
		return -EINVAL;
	*pool = (struct gw_pool){
		.frames = frames,
		.frame_bytes = frame_bytes,
		.frame_shift = (uint32_t)__builtin_ctz(frame_bytes),
	};
	pool->free = malloc((size_t)frames * sizeof(*pool->free));
	if (!pool->free)
		return -ENOMEM;
	pool->memory = mmap(NULL, (size_t)frames * frame_bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (pool->memory == MAP_FAILED) {
		int error = errno;

		free(pool->free);
		*pool = (struct gw_pool){0};
		return -error;
	}
	/* The lowest number is taken first. */
	for (uint32_t frame = frames; frame > 0; frame--)
		gw_pool_return(pool, frame - 1);
	return 0;
}

void gw_pool_clear(struct gw_pool *pool)
{
	size_t bytes = (size_t)pool->frames * pool->frame_bytes;

	if (!pool->memory)
		return;
	/* Packets in clear lie here: what the kernel takes back it zeroes before anyone gets it. */
	munmap(pool->memory, bytes);
	free(pool->free);
	*pool = (struct gw_pool){0};
}

const struct gw_io_method *gw_io_find(unsigned int kind)
{
	const struct gw_io_method *const methods[GW_IO_COUNT] = {
		[GW_IO_XDP_ZERO_COPY] = &gw_io_xdp, [GW_IO_XDP_COPY] = &gw_io_xdp_copy,
		[GW_IO_LIVE_FRAME] = &gw_io_live,   [GW_IO_PACKET] = &gw_io_packet,
		[GW_IO_TUN] = &gw_io_tun,           [GW_IO_RAW] = &gw_io_raw,
	};

	return kind < GW_IO_COUNT ? methods[kind] : NULL;
}
