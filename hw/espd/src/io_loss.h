/* SPDX-License-Identifier: Apache-2.0 */
/* Losses behind our back: when they are so many that the method must go. */
#ifndef GW_IO_LOSS_H
#define GW_IO_LOSS_H

#include <stdint.h>

/* What was counted at the last check; all zero at first. */
struct gw_io_loss {
	uint64_t sent;
	uint64_t lost;
	unsigned int bad_checks; /* in turn */
};

/**
 * gw_loss_judge() - look at what was lost since the last check.
 * @loss: of the method; updated.
 * @name: the device, for the reason.
 * @sent: packets that the method took, so far.
 * @lost: those of them that were lost, so far.
 * @why: GW_IO_WHY_BYTES, written on failure.
 *
 * A full ring now and then is what overload looks like with any method, so some losses are only
 * counted. Where everything is lost, or more than a quarter at GW_LOSS_CHECKS checks in turn, the
 * next method is worth a try.
 *
 * Return: 0; -EIO: nothing arrives; -ENOBUFS: too little does.
 */
#define GW_LOSS_CHECKS 3
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
