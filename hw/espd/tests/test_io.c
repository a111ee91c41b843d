/* SPDX-License-Identifier: Apache-2.0 */
/* What I/O methods are made of: when losses are too many, rings at the end of their count, frames. */
#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io.h"
#include "io_loss.h"
#include "link_state.h"
#include "tap.h"
#include "xsk_ring.h"

/* One check each second: how many packets were sent and lost since the last, and what is said. */
static const struct loss_row {
	const char *name;
	uint64_t sent, lost;
	int expected;
} loss_rows[] = {
	{"nothing was sent", 0, 0, 0},
	{"a loss of others', while we sent nothing", 0, 3, 0},
	{"nothing is lost", 1000, 0, 0},
	{"most is lost", 1000, 900, 0},
	{"for a long time", 1000, 999, 0},
	{"the only one is lost", 1, 1, 0},
	{"and the next", 1, 1, 0},
	{"one arrives", 2, 1, 0},
	{"few are lost", 8, 8, 0},
	{"and others'", 7, 50, 0},
	{"they are many", 1, 1, -EIO},
	{"they are counted anew", 15, 15, 0},
	{"nothing is sent meanwhile", 0, 0, 0},
	{"and are many again", 1, 1, -EIO},
	{"many at once", 1000, 1000, -EIO},
	{"and more than all", 50, 500, -EIO},
};

static void test_loss(void)
{
	struct gw_io_loss loss = {0};
	char why[GW_IO_WHY_BYTES];
	uint64_t sent = 0, lost = 0;

	for (size_t i = 0; i < sizeof(loss_rows) / sizeof(loss_rows[0]); i++) {
		const struct loss_row *row = &loss_rows[i];
		int result;

		sent += row->sent;
		lost += row->lost;
		result = gw_loss_judge(&loss, "eth0", sent, lost, why);
		tap_check(result == row->expected, row->name);
		if (result)
			tap_check(!strncmp(why, "eth0 drop", 9), "and the device is named");
	}
}

static void test_loss_while_down(void)
{
	struct gw_io_loss loss = {0};
	char why[GW_IO_WHY_BYTES];

	gw_loss_excuse(&loss, 100, 100);
	tap_check(gw_loss_judge(&loss, "eth0", 200, 100, why) == 0,
		  "what is lost while a device is down is not held against the method");
}

/* The kernel's side of a ring is played here. */
static void test_rings_wrap(void)
{
	uint32_t producer = UINT32_MAX - 2, consumer = UINT32_MAX - 2, flags = 0;
	uint64_t entries[4] = {0};
	struct gw_xsk_ring fill = {
		.producer = &producer,
		.consumer = &consumer,
		.flags = &flags,
		.entries = entries,
		.size = 4,
		.ours = producer,
		.theirs = consumer,
	};
	struct gw_xsk_ring completion = fill;

	for (uint64_t i = 0; i < 4; i++)
		*gw_ring_address(&fill, fill.ours++) = i;
	tap_check(gw_ring_room(&fill, 1) == 0, "a ring of four has no room behind four entries");
	tap_check(producer == UINT32_MAX - 2, "nobody sees them before they are shown");
	gw_ring_produced(&fill);
	tap_check(producer == 1, "the producer wraps");
	consumer = 0;
	tap_check(gw_ring_waiting(&fill) == 1, "one is left when the other side took three");
	tap_check(gw_ring_room(&fill, 4) == 3, "and there is room for three");

	consumer = UINT32_MAX - 2;
	tap_check(gw_ring_ready(&completion, 1) == 4, "the other way round, four are ready");
	for (uint64_t i = 0; i < 4; i++)
		tap_check(*gw_ring_address(&completion, completion.ours++) == i,
			  "entries come in their order");
	gw_ring_consumed(&completion);
	tap_check(consumer == 1, "the consumer wraps");
	tap_check(gw_ring_ready(&completion, 1) == 0, "then none is ready");
}

static void test_a_pool_over_a_map(void)
{
	struct gw_pool pool = {0};
	int map = memfd_create("gw_live_frames", MFD_CLOEXEC);

	tap_check(ftruncate(map, 8 * 4096) == 0 && gw_pool_init_map(&pool, map, 8, 4096) == 0,
		  "a pool can lie in the memory of a map");
	tap_check(pool.is_map && pool.free_count == 8, "all of its frames are free");
	memcpy(gw_frame_start(&pool, 3), "here", 4);
	char seen[4] = {0};

	tap_check(pread(map, seen, 4, 3 * 4096) == 4 && !memcmp(seen, "here", 4),
		  "and others with the map see what is in them");
	gw_pool_clear(&pool);
	close(map);
	tap_check(gw_pool_init_map(&pool, -1, 8, 4096) == -EBADF, "without a map there is none");
	tap_check(gw_pool_init_map(&pool, -1, 8, 1000) == -EINVAL, "frames are of a power of two");
}

static bool lies_between(const struct gw_link_counts *before, const struct gw_link_counts *counts,
			 const struct gw_link_counts *after)
{
	return before->tx_packets <= counts->tx_packets &&
	       counts->tx_packets <= after->tx_packets &&
	       before->tx_dropped <= counts->tx_dropped && counts->tx_dropped <= after->tx_dropped;
}

/* Every link of this machine, by the file and by netlink; what they drop meanwhile lies between. */
static void test_counters_of_links(void)
{
	struct if_nameindex *links = if_nameindex();
	int netlink = gw_link_open();
	struct gw_link_counts counts = {0};
	bool same = true;
	int count = 0;

	gw_link_keep_counters();
	for (; links[count].if_index; count++) {
		struct gw_link_state before = {0}, after = {0};

		if (gw_link_read(netlink, links[count].if_index, &before) ||
		    gw_link_count(netlink, links[count].if_index, &counts) ||
		    gw_link_read(netlink, links[count].if_index, &after))
			continue; /* it went meanwhile */
		same &= lies_between(&before.counts, &counts, &after.counts);
	}
	tap_check(same && count > 0, "the file says of every link what netlink says");
	tap_check(gw_link_count(netlink, 0x7ffffffe, &counts) == -ENODEV, "no such link");
	if_freenameindex(links);
	close(netlink);
}

int main(void)
{
	test_counters_of_links();
	test_loss();
	test_loss_while_down();
	test_rings_wrap();
	test_a_pool_over_a_map();
	return tap_end();
}
