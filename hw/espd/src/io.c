/* SPDX-License-Identifier: Apache-2.0 */
#include "io.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIN_FRAME_BYTES 2048u
#define MAX_FRAME_BYTES (1u << 16)

/* AF_XDP and live frames are there where they are linked in. */
#pragma weak gw_io_xdp
#pragma weak gw_io_xdp_copy
#pragma weak gw_io_live

/* Map the frames of a descriptor, none of them in use. */
static int map_frames(struct gw_pool *pool, int fd, uint32_t frames, uint32_t frame_bytes)
{
	if (frames == 0 || frame_bytes < MIN_FRAME_BYTES || frame_bytes > MAX_FRAME_BYTES ||
	    (frame_bytes & (frame_bytes - 1)) != 0)
		return -EINVAL;
	*pool = (struct gw_pool){
		.fd = -1,
		.frames = frames,
		.frame_bytes = frame_bytes,
		.frame_shift = (uint32_t)__builtin_ctz(frame_bytes),
	};
	pool->free = malloc((size_t)frames * sizeof(*pool->free));
	if (!pool->free)
		return -ENOMEM;
	pool->memory =
		mmap(NULL, (size_t)frames * frame_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (pool->memory == MAP_FAILED) {
		int error = errno;

		free(pool->free);
		*pool = (struct gw_pool){.fd = -1};
		return -error;
	}
	/* The lowest number is taken first. */
	for (uint32_t frame = frames; frame > 0; frame--)
		gw_pool_return(pool, frame - 1);
	return 0;
}

int gw_pool_init(struct gw_pool *pool, uint32_t frames, uint32_t frame_bytes)
{
	/* A memfd, so that the process that takes over has the same memory. */
	int fd = memfd_create("espd-frames", MFD_CLOEXEC), error;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)frames * frame_bytes))
		error = -errno;
	else
		error = gw_pool_adopt(pool, fd, frames, frame_bytes);
	if (error)
		close(fd);
	return error;
}

int gw_pool_adopt(struct gw_pool *pool, int fd, uint32_t frames, uint32_t frame_bytes)
{
	struct stat status;
	int error;

	/* What lies behind the end of a file is a SIGBUS. */
	if (fstat(fd, &status))
		return -errno;
	if (status.st_size != (off_t)frames * frame_bytes)
		return -EINVAL;
	error = map_frames(pool, fd, frames, frame_bytes);
	if (!error)
		pool->fd = fd;
	return error;
}

int gw_pool_init_map(struct gw_pool *pool, int map_fd, uint32_t frames, uint32_t frame_bytes)
{
	/* The kernel maps whole maps, or what begins them: another size of frame is no error here. */
	int error = map_frames(pool, map_fd, frames, frame_bytes);

	if (!error)
		pool->is_map = true;
	return error;
}

void gw_pool_keep(struct gw_pool *pool, const uint8_t *used)
{
	pool->free_count = 0;
	for (uint32_t frame = pool->frames; frame > 0; frame--)
		if (!used[frame - 1])
			gw_pool_return(pool, frame - 1);
}

void gw_pool_clear(struct gw_pool *pool)
{
	size_t bytes = (size_t)pool->frames * pool->frame_bytes;

	if (!pool->memory)
		return;
	/* Packets in clear lie here: what the kernel takes back it zeroes before anyone gets it. */
	munmap(pool->memory, bytes);
	free(pool->free);
	if (pool->fd >= 0)
		close(pool->fd);
	*pool = (struct gw_pool){.fd = -1};
}

void gw_io_save_data(struct gw_io_saved *saved, const void *data, uint32_t bytes)
{
	assert(bytes <= sizeof(saved->data));
	memcpy(saved->data, data, bytes);
	saved->bytes = bytes;
}

const void *gw_io_saved_data(const struct gw_io_saved *saved, uint32_t bytes, char *why)
{
	if (saved->bytes == bytes)
		return saved->data;
	snprintf(why, GW_IO_WHY_BYTES, "%u bytes of its state, not %u", saved->bytes, bytes);
	return NULL;
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
