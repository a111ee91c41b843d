/* SPDX-License-Identifier: Apache-2.0 */
/* One question to the kernel, and its answer. */
#include "link_state.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
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
		state->tx_dropped = statistics.tx_dropped;
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
