/* SPDX-License-Identifier: Apache-2.0 */
/* Which method a device gets, and whether it keeps it: a frame is sent where it is to send. */
#include "io_probe.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define PATIENCE_NS 100000000ull
#define NAP_NS      100000
/* Before all is said to be lost. */
#define PROBES 3

static uint64_t gw_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void gw_probe_write(uint8_t *frame, const uint8_t mac[6])
{
	memset(frame, 0, GW_PROBE_FRAME_BYTES);
	memcpy(frame, mac, 6);
	memcpy(frame + 6, mac, 6);
	frame[12] = GW_PROBE_ETHERTYPE >> 8;
	frame[13] = GW_PROBE_ETHERTYPE & 0xff;
	memcpy(frame + 14, GW_PROBE_TEXT, sizeof(GW_PROBE_TEXT));
}

int gw_probe_send(struct gw_io *io, const struct gw_control_device *device, char *why)
{
	struct gw_pool *pool = io->pool;
	uint32_t free_before = pool->free_count, frame = gw_pool_take(pool);
	uint64_t start_ns = gw_now_ns();
	struct gw_io_counters before, after;
	struct gw_packet packet;
	int error;

	if (frame == GW_NO_FRAME) {
		snprintf(why, GW_IO_WHY_BYTES, "no frame is left for a probe of %s", device->name);
		return -ENOMEM;
	}
	gw_frame_describe(pool, frame, GW_FRAME_DATA, GW_PROBE_FRAME_BYTES, &packet);
	gw_probe_write(packet.data, device->mac);
	io->method->counters(io, &before);
	if (io->method->send(io, &packet, 1) != 1) {
		gw_pool_return(pool, frame);
		error = io->method->check(io, start_ns, why);
		if (!error) {
			snprintf(why, GW_IO_WHY_BYTES, "%s takes no frame by %s", device->name,
				 io->method->name);
			error = -EAGAIN;
		}
		return error;
	}
	io->method->flush(io);
	while (pool->free_count < free_before) {
		if (gw_now_ns() - start_ns > PATIENCE_NS) {
			snprintf(why, GW_IO_WHY_BYTES,
				 "%s took a probe frame by %s and never finished it", device->name,
				 io->method->name);
			return -ETIMEDOUT;
		}
		nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
		io->method->flush(io);
	}
	error = io->method->check(io, gw_now_ns(), why);
	io->method->counters(io, &after);
	if (error || after.send_lost == before.send_lost)
		return error;
	snprintf(why, GW_IO_WHY_BYTES, "%s dropped a probe frame that it was given by %s",
		 device->name, io->method->name);
	return -EIO;
}

int gw_probe_insist(struct gw_io *io, const struct gw_control_device *device, char *why)
{
	int error = -EIO;

	for (int i = 0; i < PROBES && error == -EIO; i++)
		error = gw_probe_send(io, device, why);
	return error;
}

int gw_io_check(struct gw_io *io, const struct gw_control_device *device, uint64_t now_ns,
		char *why)
{
	int error = io->method->check ? io->method->check(io, now_ns, why) : 0;
	char probed[GW_IO_WHY_BYTES];

	if (error != -EIO)
		return error;
	switch (gw_probe_insist(io, device, probed)) {
	case 0:
	case -ENOMEM: /* nobody was asked */
	case -ENETDOWN:
		return 0;
	default:
		return error;
	}
}

/* Add a reason behind those that are there, as far as it fits. */
static void gw_io_add_reason(char *why, const char *method, const char *reason)
{
	size_t used = strlen(why);

	snprintf(why + used, GW_IO_WHY_BYTES - used, "%s%s: %s", used ? "; " : "", method, reason);
}

int gw_io_choose(const struct gw_io_options *options, const uint8_t *kinds, unsigned int count,
		 struct gw_io **io, char *why)
{
	char reason[GW_IO_WHY_BYTES];
	int error = -ENOENT;

	why[0] = 0;
	for (unsigned int place = 0; place < count && kinds[place]; place++) {
		const struct gw_io_method *method = gw_io_find(kinds[place]);

		if (!method) {
			gw_io_add_reason(why, "a method of another version", "not built in");
			continue;
		}
		reason[0] = 0;
		error = method->open(options, io, reason);
		if (!error)
			return (int)place;
		gw_io_add_reason(why, method->name, reason[0] ? reason : strerror(-error));
		if (error == -ENETDOWN)
			break;
	}
	return error;
}
