/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What the sink of a benchmark shares with the traffic generator (hw/bench), in memory that both have
 * mapped: what is counted, and how much of it came.
 */
#ifndef GW_SINK_H
#define GW_SINK_H

#include <linux/types.h>

#define GW_SINK_CPUS 256

/* The only value of gw_sink_wanted, in host order. */
struct gw_sink_wanted {
	__u32 protocol; /* of IPv4: 50 or 17; 0: nothing is counted, all goes on to the stack */
	__u32 first_spi;
	__u32 spis;        /* so many are counted up from first_spi */
	__u32 magic;       /* what the payload of UDP begins with */
	__u32 sample_mask; /* packets without these bits in their number are samples */
	__u32 reserved;
};

/* Of one CPU: a line of its cache. */
struct gw_sink_count {
	__u64 packets;
	__u64 bytes; /* of IP packets */
	__u64 reserved[6];
};

#endif
