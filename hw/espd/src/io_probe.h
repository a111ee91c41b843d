/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which method a device gets: the first that opens, and sends a frame where it is to send; and whether it
 * still does when all is lost.
 */
#ifndef GW_IO_PROBE_H
#define GW_IO_PROBE_H

#include "io.h"

/*
 * A frame from the device to the device, of a type that nobody listens to: one of those that
 * IEEE 802 leaves to local experiments. A switch does not forward a frame to where it came from.
 */
#define GW_PROBE_ETHERTYPE   0x88b5
#define GW_PROBE_FRAME_BYTES 60
#define GW_PROBE_TEXT        "ipsecgw probe"

/**
 * gw_probe_send() - send a probe frame and have the method account for it.
 * @io: of a method that sends Ethernet frames; complete but for what only packets change.
 * @device: where it sends.
 * @why: GW_IO_WHY_BYTES, written on failure.
 *
 * Blocks until the frame is back in the pool, 100 ms at most: a socket is opened, or tried again,
 * once in seconds.
 * Return: 0; -EIO: it was lost; -ETIMEDOUT: it never came back; -ENOMEM: the pool has none; or what
 * check() says.
 */
int gw_probe_send(struct gw_io *io, const struct gw_control_device *device, char *why);

/**
 * gw_probe_insist() - send a probe frame, and another where it was lost: a link counts what it dropped
 * of others too.
 *
 * Arguments and result are those of gw_probe_send().
 */
int gw_probe_insist(struct gw_io *io, const struct gw_control_device *device, char *why);

/**
 * gw_io_check() - check() of a method that sends, in which packets that were lost prove nothing.
 * @io: of any method.
 * @device: where it sends.
 * @now_ns: CLOCK_MONOTONIC.
 * @why: GW_IO_WHY_BYTES, written on failure.
 *
 * Where all were lost that it was given, a short frame says whether it is to blame, or they were.
 * Return: 0; -EIO: nothing arrives; or what check() says.
 */
int gw_io_check(struct gw_io *io, const struct gw_control_device *device, uint64_t now_ns,
		char *why);

/**
 * gw_io_choose() - open the first method that works.
 * @options: for all of them.
 * @kinds: enum gw_io_kind, the best first.
 * @count: how many; a 0 among them ends the list.
 * @io: where the object goes.
 * @why: GW_IO_WHY_BYTES: why not the best one, empty if it is. What is less good than another that
 * failed is told where there is room.
 *
 * To give a method up, close it and choose among those behind it.
 * Return: the place of the method in @kinds; -ENETDOWN: the device is down, ask again when it is
 * up; or the -errno of the last method.
 */
int gw_io_choose(const struct gw_io_options *options, const uint8_t *kinds, unsigned int count,
		 struct gw_io **io, char *why);

#endif
