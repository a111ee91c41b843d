/* SPDX-License-Identifier: Apache-2.0 */
/* Losses behind our back: when they are such that the method may carry nothing at all. */
#ifndef GW_IO_LOSS_H
#define GW_IO_LOSS_H

#include <stdint.h>

/* What was counted at the last check; all zero at first. */
struct gw_io_loss {
	uint64_t sent;
	uint64_t lost;
	uint64_t in_a_row; /* packets that were all lost, since one may have arrived */
};

/**
 * gw_loss_judge() - look at what was lost since the last check.
 * @loss: of the method; updated.
 * @name: the device, for the reason.
 * @sent: packets that the method took, so far.
 * @lost: those of them that were lost, so far.
 * @why: GW_IO_WHY_BYTES, written on failure.
 *
 * As long as some arrive, losses are counted and nothing else: full rings are what overload looks like
 * with any method, and another would lose no fewer. Only when all of GW_LOSS_PACKETS in a row were lost,
 * in one check or in many, is it worth to ask whether the method is to blame: the packets may have been
 * too long for whoever gets them, and a link counts the losses of others too. gw_io_check() asks. Sixteen
 * are more than one connection loses while it finds out its path MTU, and what DPD of a quiet gateway
 * sends in minutes.
 *
 * Return: 0; -EIO: nothing seems to arrive.
 */
#define GW_LOSS_PACKETS 16
int gw_loss_judge(struct gw_io_loss *loss, const char *name, uint64_t sent, uint64_t lost,
		  char *why);

/**
 * gw_loss_excuse() - do not look at what was lost since the last check: the device was down.
 * @loss: of the method; updated.
 * @sent: see gw_loss_judge().
 * @lost: see gw_loss_judge().
 */
void gw_loss_excuse(struct gw_io_loss *loss, uint64_t sent, uint64_t lost);

#endif
