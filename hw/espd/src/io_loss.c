/* SPDX-License-Identifier: Apache-2.0 */
/* Losses behind our back: when they are such that the method may carry nothing at all. */
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
	if (newly_lost < newly_sent) {
		loss->in_a_row = 0;
		return 0;
	}
	loss->in_a_row += newly_sent;
	if (loss->in_a_row < GW_LOSS_PACKETS)
		return 0;
	snprintf(why, GW_IO_WHY_BYTES,
		 "%s dropped all of the %" PRIu64 " packets that it was last given", name,
		 loss->in_a_row);
	loss->in_a_row = 0;
	return -EIO;
}
