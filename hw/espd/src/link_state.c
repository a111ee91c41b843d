/* SPDX-License-Identifier: Apache-2.0 */
/* Questions to the kernel about one link, and their answers. */
#include "link_state.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io.h"

/* Of one link with all its attributes; VFs, which would be many, are not asked for. */
#define ANSWER_BYTES 16384

int gw_link_open(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	return fd < 0 ? -errno : fd;
}

static void gw_link_parse(const struct nlmsghdr *answer, struct gw_link_state *state)
{
	const struct ifinfomsg *link = NLMSG_DATA(answer);
	int left = (int)IFLA_PAYLOAD(answer);

	*state = (struct gw_link_state){.flags = link->ifi_flags};
	for (const struct rtattr *item = IFLA_RTA(link); RTA_OK(item, left);
	     item = RTA_NEXT(item, left)) {
		struct rtnl_link_stats64 statistics = {0};
		size_t bytes = RTA_PAYLOAD(item);

		if (item->rta_type != IFLA_STATS64)
			continue;
		memcpy(&statistics, RTA_DATA(item),
		       bytes < sizeof(statistics) ? bytes : sizeof(statistics));
		state->counts =
			(struct gw_link_counts){statistics.tx_packets, statistics.tx_dropped};
	}
}

int gw_link_read(int netlink_fd, uint32_t ifindex, struct gw_link_state *state)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg link;
	} question = {
		.header = {.nlmsg_len = sizeof(question),
			   .nlmsg_type = RTM_GETLINK,
			   .nlmsg_flags = NLM_F_REQUEST},
		.link = {.ifi_family = AF_UNSPEC, .ifi_index = (int)ifindex},
	};
	_Alignas(struct nlmsghdr) char answer[ANSWER_BYTES];
	const struct nlmsghdr *header = (const struct nlmsghdr *)answer;
	ssize_t length;

	if (send(netlink_fd, &question, sizeof(question), 0) < 0)
		return -errno;
	do {
		length = recv(netlink_fd, answer, sizeof(answer), 0);
	} while (length < 0 && errno == EINTR);
	if (length < 0)
		return -errno;
	if (!NLMSG_OK(header, (size_t)length))
		return -EPROTO;
	if (header->nlmsg_type == NLMSG_ERROR)
		return ((const struct nlmsgerr *)NLMSG_DATA(header))->error;
	if (header->nlmsg_type != RTM_NEWLINK)
		return -EPROTO;
	gw_link_parse(header, state);
	return 0;
}

/* --- without the lock of all links */

#define COUNTERS_FILE "/proc/thread-self/net/dev"
/* The kernel writes whole lines, as many as fit a page. */
#define PORTION_BYTES 4096
/* Behind "  eth0: ": eight of what was received, bytes, packets, errors and drops of what was sent. */
enum column {
	TX_PACKETS = 9,
	TX_DROPPED = 11,
	COLUMNS
};

static int counters_fd = -1;
/* Threads that read in turn at their offsets would have the kernel begin anew each time. */
static pthread_mutex_t counters_lock = PTHREAD_MUTEX_INITIALIZER;

void gw_link_keep_counters(void)
{
	counters_fd = open(COUNTERS_FILE, O_RDONLY | O_CLOEXEC);
}

/* Read the counters out of a line, if it is of the link. */
static bool parse_line(const char *line, const char *name, struct gw_link_counts *counts)
{
	size_t length = strlen(name);
	uint64_t columns[COLUMNS];
	char *rest;

	line += strspn(line, " ");
	if (strncmp(line, name, length) != 0 || line[length] != ':')
		return false;
	rest = (char *)(uintptr_t)line + length + 1;
	for (int column = 0; column < COLUMNS; column++)
		columns[column] = strtoull(rest, &rest, 10);
	*counts = (struct gw_link_counts){columns[TX_PACKETS], columns[TX_DROPPED]};
	return true;
}

/* Find the link's line in a portion, and leave there what begins the next. */
static bool find_line(char *text, const char *name, struct gw_link_counts *counts)
{
	char *line = text, *end;

	for (; (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		if (parse_line(line, name, counts))
			return true;
	}
	memmove(text, line, strlen(line) + 1);
	return false;
}

static int read_counters(const char *name, struct gw_link_counts *counts)
{
	char text[2 * PORTION_BYTES + 1] = "";
	off_t offset = 0;
	ssize_t got;

	do {
		size_t begun = strlen(text);

		if (begun > PORTION_BYTES)
			return -EPROTO;
		got = pread(counters_fd, text + begun, PORTION_BYTES, offset);
		if (got < 0)
			return -errno;
		offset += got;
		text[begun + (size_t)got] = '\0';
		if (find_line(text, name, counts))
			return 0;
	} while (got > 0);
	return -ENODEV;
}

int gw_link_count(int netlink_fd, uint32_t ifindex, struct gw_link_counts *counts)
{
	struct ifreq request = {.ifr_ifindex = (int)ifindex};
	struct gw_link_state state = {0};
	int error;

	if (counters_fd < 0) {
		error = gw_link_read(netlink_fd, ifindex, &state);
		*counts = state.counts;
		return error;
	}
	/* Any socket will do. The name may have changed. */
	if (ioctl(netlink_fd, SIOCGIFNAME, &request))
		return -errno;
	pthread_mutex_lock(&counters_lock);
	error = read_counters(request.ifr_name, counts);
	pthread_mutex_unlock(&counters_lock);
	return error;
}

int gw_link_require(int netlink_fd, uint32_t ifindex, const char *name, char *why)
{
	struct ifreq request = {.ifr_ifindex = (int)ifindex};
	struct gw_link_state state;

	/* Any socket will do. The name may have changed. */
	if (ioctl(netlink_fd, SIOCGIFNAME, &request) || ioctl(netlink_fd, SIOCGIFFLAGS, &request)) {
		int error = errno;

		snprintf(why, GW_IO_WHY_BYTES, "%s cannot be asked for its state: %s", name,
			 strerror(error));
		return -error;
	}
	if (request.ifr_flags & IFF_UP && request.ifr_flags & IFF_RUNNING)
		return 0;
	/* A link that is just up has its carrier a moment later; rtnetlink waits for that. */
	if (request.ifr_flags & IFF_UP && !gw_link_read(netlink_fd, ifindex, &state) &&
	    state.flags & IFF_RUNNING)
		return 0;
	snprintf(why, GW_IO_WHY_BYTES, "%s is down%s", name,
		 request.ifr_flags & IFF_UP ? ": it has no carrier" : "");
	return -ENETDOWN;
}
