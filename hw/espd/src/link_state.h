/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel says of a link: whether it is up, and what it dropped. */
#ifndef GW_LINK_STATE_H
#define GW_LINK_STATE_H

#include <stdint.h>

/* Of everybody who sends there. */
struct gw_link_counts {
	uint64_t tx_packets;
	uint64_t tx_dropped;
};

struct gw_link_state {
	unsigned int flags; /* IFF_UP, IFF_RUNNING */
	struct gw_link_counts counts;
};

/**
 * gw_link_open() - open a socket for gw_link_read, in the network namespace of the caller.
 *
 * Return: a descriptor, or -errno.
 */
int gw_link_open(void);

/**
 * gw_link_read() - ask for the counters of one link.
 * @netlink_fd: of gw_link_open; used by one thread at a time.
 * @ifindex: which.
 * @state: written on success.
 *
 * The kernel answers under the lock of all changes to links (RTNL), which others may hold for long:
 * not for every round.
 *
 * Return: 0, -ENODEV where there is none, or -errno.
 */
int gw_link_read(int netlink_fd, uint32_t ifindex, struct gw_link_state *state);

/**
 * gw_link_keep_counters() - open the file of all links' counters, while files can still be opened.
 *
 * Of the network namespace of the caller. Without it gw_link_count asks by netlink.
 */
void gw_link_keep_counters(void);

/**
 * gw_link_count() - read how many packets a link sent, and dropped that were to be sent.
 * @netlink_fd: of gw_link_open; used by one thread at a time.
 * @ifindex: which.
 * @counts: written on success.
 *
 * It is read from /proc/net/dev, for which the kernel takes no lock of links: a worker that asks
 * every second never waits for whoever changes them. By any thread.
 *
 * Return: 0, -ENODEV where there is none, or -errno.
 */
int gw_link_count(int netlink_fd, uint32_t ifindex, struct gw_link_counts *counts);

/**
 * gw_link_require() - have a link carry frames; where it does, no lock is taken.
 * @netlink_fd: see gw_link_read.
 * @ifindex: which.
 * @name: how the reason calls it.
 * @why: GW_IO_WHY_BYTES, written on failure.
 *
 * Return: 0; -ENETDOWN where it is down or has no carrier: no method is to blame; or -errno.
 */
int gw_link_require(int netlink_fd, uint32_t ifindex, const char *name, char *why);

#endif
