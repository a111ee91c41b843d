/* SPDX-License-Identifier: Apache-2.0 */
/* Frames in the memory of a BPF map. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "io.h"

int gw_pool_init_map(struct gw_pool *pool, int map_fd, uint32_t frames, uint32_t frame_bytes)
{
	struct gw_pool own;
	void *memory;
	int error = gw_pool_init(&own, frames, frame_bytes);

	if (error)
		return error;
	/* The kernel maps whole maps, or what begins them: another size of frame is no error here. */
	memory = mmap(own.memory, (size_t)frames * frame_bytes, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_FIXED, map_fd, 0);
	if (memory == MAP_FAILED) {
		error = -errno;
		gw_pool_clear(&own);
		return error;
	}
	*pool = own;
	pool->is_map = true;
	return 0;
}
