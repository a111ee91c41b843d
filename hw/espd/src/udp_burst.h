/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ESP in UDP sent many packets at a time: what was cut out of one super-frame and sealed leaves as
 * one again (UDP_SEGMENT, Linux 4.18), so that the kernel routes, filters and queues it once.
 *
 * The socket is one more member of the agent's SO_REUSEPORT group of UDP 4500, behind its two, which
 * the group's selector never chooses. It must be gone when the agent makes the group anew.
 */
#ifndef GW_UDP_BURST_H
#define GW_UDP_BURST_H

#include <stdatomic.h>
#include <stdbool.h>

#include "io.h"

struct gw_udp_burst {
	const atomic_bool *agent; /* whether there is one; NULL: never send this way */
	uint32_t mark;
	int fds[2];         /* of IPv4 and IPv6, or -1 */
	int discover;       /* what IP_MTU_DISCOVER is: whether DF is set; or -1 */
	bool is_refused[2]; /* the kernel or the device has no UDP_SEGMENT */
};

/**
 * gw_udp_burst_init() - make one that is not open.
 * @burst: filled in.
 * @agent: kept; NULL: it never opens.
 * @mark: SO_MARK of what is sent.
 */
void gw_udp_burst_init(struct gw_udp_burst *burst, const atomic_bool *agent, uint32_t mark);

/**
 * gw_udp_burst_follow() - open or close the sockets, as the agent comes and goes.
 * @burst: initialized. Called about once a second.
 */
void gw_udp_burst_follow(struct gw_udp_burst *burst);

/**
 * gw_udp_burst_send() - send those of the first packets that can leave together.
 * @burst: initialized.
 * @packets: IP packets in order.
 * @count: how many.
 *
 * They are ESP in UDP with equal headers and equal lengths, but the last may be shorter. UDP over
 * IPv4 gets a checksum then, which RFC 3948 §2.1 would rather have zero and no receiver looks at.
 * Return: how many were sent; 0: none, send the first another way; -errno: the kernel has no room.
 */
int gw_udp_burst_send(struct gw_udp_burst *burst, const struct gw_packet *packets,
		      unsigned int count);

/**
 * gw_udp_burst_close() - close the sockets.
 * @burst: initialized.
 */
void gw_udp_burst_close(struct gw_udp_burst *burst);

#endif
