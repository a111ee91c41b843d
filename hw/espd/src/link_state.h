/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel says of a link: whether it is up, and what it dropped (rtnetlink, RTM_GETLINK). */
#ifndef GW_LINK_STATE_H
#define GW_LINK_STATE_H

#include <stdbool.h>
#include <stdint.h>

struct gw_link_state {
	bool is_up;       /* by its administrator */
	bool has_carrier; /* of a veth: the other end is up */
	uint32_t mtu;
	uint64_t tx_packets;
	uint64_t tx_dropped; /* of everybody who sends there */
};

/**
 * gw_link_open() - open a socket for gw_link_read, in the network namespace of the caller.
 *
 * Return: a descriptor, or -errno.
 */
int gw_link_open(void);

/**
 * gw_link_read() - ask for one link; it takes some microseconds.
 * @netlink_fd: of gw_link_open; used by one thread at a time.
 * @ifindex: which.
 * @state: written on success.
 *
 * Return: 0, -ENODEV where there is none, or -errno.
 */
int gw_link_read(int netlink_fd, uint32_t ifindex, struct gw_link_state *state);

/**
 * gw_link_require() - read a link, and have it carry frames.
 * @netlink_fd: see gw_link_read.
 * @ifindex: which.
 * @name: how the reason calls it.
 * @state: written on success.
 * @why: GW_IO_WHY_BYTES, written on failure.
 *
 * Return: 0; -ENETDOWN where it is down or has no carrier: no method is to blame; or -errno.
 */
int gw_link_require(int netlink_fd, uint32_t ifindex, const char *name, struct gw_link_state *state,
		    char *why);

#endif
