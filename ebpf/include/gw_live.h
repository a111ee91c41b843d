/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What the program that sends live frames shares with the engine (hw/espd/src/io_live.c), in memory
 * that both have mapped.
 *
 * The engine fills slots, sets slots_used, and has BPF_PROG_TEST_RUN run the program so often: each
 * run takes the next slot. What becomes of a frame after the program has redirected it, only
 * tracepoints tell. They fire on the CPU that runs the program, before it goes on to anything else:
 * as long as frames are `pending`, what happens to frames on `cpu` happens to ours.
 *
 * One instance belongs to one thread.
 */
#ifndef GW_LIVE_H
#define GW_LIVE_H

#include <linux/types.h>

#define GW_LIVE_SLOTS 1024
/* A packet begins within so many bytes of its frame, and there are none behind the rest. */
#define GW_LIVE_MAX_OFFSET 511
/* Losses are counted by errno; LOST_FULL: the kernel says none, the device's queue was full. */
#define GW_LIVE_ERRNOS    256
#define GW_LIVE_LOST_FULL 0

/* A frame to send. */
struct gw_live_slot {
	__u32 frame;  /* its number in gw_live_frames */
	__u16 offset; /* of the packet in it */
	__u16 length;
};
_Static_assert(sizeof(struct gw_live_slot) == 8, "struct gw_live_slot has another size");

/* The only value of gw_live_burst. */
struct gw_live_burst {
	__u32 slots_used; /* set by the engine */
	__u32 next_slot;  /* set to 0 by the engine, counted by the program */
	__u32 ifindex;    /* where to; 0: into the stack, as received where the run says */
	__u32 cpu;        /* where the program runs */
	/* Only so many octets of each frame are stored, what follows is left from frames before. 0: all. */
	__u32 stored;
	__u32 unused;
	__u64 pending;              /* redirected, and not told of yet */
	__u64 sent;                 /* all so far; the device took them */
	__u64 refused;              /* all so far: slots that the program cannot send */
	__u64 lost[GW_LIVE_ERRNOS]; /* all so far, by errno */
	struct gw_live_slot slots[GW_LIVE_SLOTS];
};

#endif
