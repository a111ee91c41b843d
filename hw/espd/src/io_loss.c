/* SPDX-License-Identifier: Apache-2.0 */
/* Losses behind our back: when they are so many that the method must go. */
#include "io_loss.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "io.h"

void gw_loss_excuse(struct gw_io_loss *loss, uint64_t sent, uint64_t lost)
{
	*loss = (struct gw_io_loss){.sent = sent, .lost = lost};
}

int gw_loss_judge(struct gw_io_loss *loss, const char *name, uint64_t sent, uint64_t lost,
		  char *why)
{
	uint64_t newly_sent = sent - loss->sent;
	uint64_t newly_lost = lost - loss->lost;

	loss->sent = sent;
	loss->lost = lost;
	if (newly_sent && newly_lost >= newly_sent) {
		snprintf(why, GW_IO_WHY_BYTES,
			 "%s dropped all of the %" PRIu64 " packets that it was last given", name,
			 newly_sent);
		return -EIO;
	}
	if (newly_lost <= newly_sent / 4) {
		loss->bad_checks = 0;
		return 0;
	}
	if (++loss->bad_checks < GW_LOSS_CHECKS)
		return 0;
	snprintf(why, GW_IO_WHY_BYTES,
		 "%s drops more than a quarter: %" PRIu64 " of the last %" PRIu64 " packets", name,
		 newly_lost, newly_sent);
	return -ENOBUFS;
}
