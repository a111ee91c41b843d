/* SPDX-License-Identifier: Apache-2.0 */
#include "udp_burst.h"

#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdalign.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bytes.h"
#include "ip.h"

/* Linux 4.18 <linux/udp.h> */
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

/* UDP_MAX_SEGMENTS of every kernel that has it. */
#define MAX_PACKETS 64u
/* One IP packet to the kernel until it is cut: its length must fit. */
#define MAX_BYTES   65000u
#define SEND_BUFFER (4 << 20)
#define DF          0x40u
/* The first octets of IPv4's header, and where DF is; IPv6's differ in their length only. */
#define IPV4_FLAGS 6u

void gw_udp_burst_init(struct gw_udp_burst *burst, const atomic_bool *agent, uint32_t mark)
{
	*burst = (struct gw_udp_burst){.agent = agent, .mark = mark, .fds = {-1, -1}};
	burst->discover = -1;
}

void gw_udp_burst_close(struct gw_udp_burst *burst)
{
	for (int i = 0; i < 2; i++)
		if (burst->fds[i] >= 0)
			close(burst->fds[i]);
	burst->fds[0] = burst->fds[1] = -1;
	burst->discover = -1;
}

static int open_member(bool is_ipv6, uint32_t mark)
{
	struct sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
	struct sock_fprog program = {.len = 1, .filter = nothing};
	struct sockaddr_in6 ipv6 = {
		.sin6_family = AF_INET6,
		.sin6_port = htons(GW_UDP_ENCAPSULATION_PORT),
	};
	struct sockaddr_in ipv4 = {
		.sin_family = AF_INET,
		.sin_port = htons(GW_UDP_ENCAPSULATION_PORT),
	};
	int fd = socket(is_ipv6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int on = 1, bytes = SEND_BUFFER;

	if (fd < 0)
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) ||
	    setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) ||
	    (is_ipv6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on))) ||
	    bind(fd, is_ipv6 ? (struct sockaddr *)&ipv6 : (struct sockaddr *)&ipv4,
		 is_ipv6 ? sizeof(ipv6) : sizeof(ipv4))) {
		close(fd);
		return -1;
	}
	return fd;
}

void gw_udp_burst_follow(struct gw_udp_burst *burst)
{
	if (!burst->agent || !atomic_load(burst->agent)) {
		gw_udp_burst_close(burst);
		return;
	}
	for (int i = 0; i < 2; i++)
		if (burst->fds[i] < 0 && !burst->is_refused[i])
			burst->fds[i] = open_member(i == 1, burst->mark);
}

/* --- what can leave together */

static bool is_encapsulated(const struct gw_packet *packet)
{
	const uint8_t *ip = packet->data;
	bool is_ipv4 = ip[0] == 0x45;
	uint32_t at = is_ipv4 ? GW_IPV4_BYTES : GW_IPV6_BYTES;

	if (packet->flags & GW_PACKET_CLEAR || packet->length < at + GW_UDP_BYTES + 4 ||
	    (!is_ipv4 && ip[0] >> 4 != 6))
		return false;
	return ip[is_ipv4 ? 9 : 6] == GW_PROTOCOL_UDP &&
	       gw_load16(ip + at) == GW_UDP_ENCAPSULATION_PORT &&
	       !(is_ipv4 && gw_load16(ip + IPV4_FLAGS) & GW_IPV4_MF_OR_OFFSET) &&
	       gw_load32(ip + at + GW_UDP_BYTES) != 0;
}

/* Whether the headers are equal but for lengths, identification and checksums. */
static bool has_equal_headers(const uint8_t *a, const uint8_t *b)
{
	if (a[0] != b[0])
		return false;
	if (a[0] == 0x45)
		return a[1] == b[1] && memcmp(a + IPV4_FLAGS, b + IPV4_FLAGS, 4) == 0 &&
		       memcmp(a + 12, b + 12, 8 + 4) == 0;
	return memcmp(a, b, 4) == 0 && memcmp(a + 6, b + 6, 34 + 4) == 0;
}

static unsigned int count_equal(const struct gw_packet *packets, unsigned int count)
{
	uint32_t bytes = packets[0].length;
	unsigned int same = 1;

	for (; same < count && same < MAX_PACKETS; same++) {
		const struct gw_packet *packet = &packets[same];

		bytes += packet->length;
		if (packet->length > packets[0].length || bytes > MAX_BYTES ||
		    packet->flags & GW_PACKET_CLEAR ||
		    packet->length < GW_IPV6_BYTES + GW_UDP_BYTES + 4 ||
		    !has_equal_headers(packets[0].data, packet->data))
			break;
		if (packet->length < packets[0].length)
			return same + 1; /* nothing may follow a shorter one */
	}
	return same;
}

/* --- sending */

struct destination {
	union {
		struct sockaddr_in ipv4;
		struct sockaddr_in6 ipv6;
	} to;
	alignas(struct cmsghdr) uint8_t
		control[CMSG_SPACE(sizeof(uint16_t)) + CMSG_SPACE(sizeof(struct in6_pktinfo)) +
			2 * CMSG_SPACE(sizeof(int))];
};

static void put_control(struct msghdr *message, int level, int type, const void *value,
			size_t bytes)
{
	struct cmsghdr *at = (struct cmsghdr *)(void *)((uint8_t *)message->msg_control +
							message->msg_controllen);

	*at = (struct cmsghdr){.cmsg_len = CMSG_LEN(bytes), .cmsg_level = level, .cmsg_type = type};
	memcpy(CMSG_DATA(at), value, bytes);
	message->msg_controllen += CMSG_SPACE(bytes);
}

/* Have the kernel write the headers that these packets have. */
static void address(struct destination *destination, struct msghdr *message, const uint8_t *ip,
		    uint16_t segment)
{
	memset(destination, 0, sizeof(*destination));
	message->msg_name = &destination->to;
	message->msg_control = destination->control;
	put_control(message, SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment));
	if (ip[0] >> 4 == 4) {
		struct in_pktinfo source = {0};
		int tos = ip[1], ttl = ip[8];

		destination->to.ipv4.sin_family = AF_INET;
		memcpy(&destination->to.ipv4.sin_addr, ip + 16, 4);
		memcpy(&destination->to.ipv4.sin_port, ip + GW_IPV4_BYTES + 2, 2);
		memcpy(&source.ipi_spec_dst, ip + 12, 4);
		message->msg_namelen = sizeof(destination->to.ipv4);
		put_control(message, IPPROTO_IP, IP_PKTINFO, &source, sizeof(source));
		put_control(message, IPPROTO_IP, IP_TOS, &tos, sizeof(tos));
		put_control(message, IPPROTO_IP, IP_TTL, &ttl, sizeof(ttl));
	} else {
		struct in6_pktinfo source = {0};
		int traffic_class = (ip[0] & 0x0f) << 4 | ip[1] >> 4, hops = ip[7];

		destination->to.ipv6.sin6_family = AF_INET6;
		memcpy(&destination->to.ipv6.sin6_addr, ip + 24, 16);
		memcpy(&destination->to.ipv6.sin6_port, ip + GW_IPV6_BYTES + 2, 2);
		memcpy(&source.ipi6_addr, ip + 8, 16);
		message->msg_namelen = sizeof(destination->to.ipv6);
		put_control(message, IPPROTO_IPV6, IPV6_PKTINFO, &source, sizeof(source));
		put_control(message, IPPROTO_IPV6, IPV6_TCLASS, &traffic_class,
			    sizeof(traffic_class));
		put_control(message, IPPROTO_IPV6, IPV6_HOPLIMIT, &hops, sizeof(hops));
	}
}

/* DF is a socket's, not a message's. PROBE sets it and leaves the path's MTU to us, as raw sockets do. */
static bool set_df(struct gw_udp_burst *burst, const uint8_t *ip)
{
	int discover = ip[IPV4_FLAGS] & DF ? IP_PMTUDISC_PROBE : IP_PMTUDISC_DONT;

	if (ip[0] >> 4 == 6 || burst->discover == discover)
		return true;
	if (setsockopt(burst->fds[0], IPPROTO_IP, IP_MTU_DISCOVER, &discover, sizeof(discover)))
		return false;
	burst->discover = discover;
	return true;
}

int gw_udp_burst_send(struct gw_udp_burst *burst, const struct gw_packet *packets,
		      unsigned int count)
{
	const uint8_t *ip = packets[0].data;
	unsigned int family = ip[0] >> 4 == 6 ? 1 : 0, same;
	uint32_t headers = (family ? GW_IPV6_BYTES : GW_IPV4_BYTES) + GW_UDP_BYTES;
	struct iovec pieces[MAX_PACKETS];
	struct destination destination;
	struct msghdr message = {.msg_iov = pieces};

	if (burst->fds[family] < 0 || count < 2 || !is_encapsulated(&packets[0]))
		return 0;
	same = count_equal(packets, count);
	if (same < 2 || !set_df(burst, ip))
		return 0;
	for (unsigned int i = 0; i < same; i++)
		pieces[i] = (struct iovec){packets[i].data + headers, packets[i].length - headers};
	message.msg_iovlen = same;
	address(&destination, &message, ip, (uint16_t)(packets[0].length - headers));
	if (sendmsg(burst->fds[family], &message, MSG_DONTWAIT) >= 0)
		return (int)same;
	if (errno == EAGAIN || errno == ENOBUFS)
		return -errno;
	/* Packets that the way does not take are the raw socket's to send, or to lose. */
	if (errno == EIO || errno == ENOPROTOOPT || errno == EOPNOTSUPP) {
		burst->is_refused[family] = true;
		close(burst->fds[family]);
		burst->fds[family] = -1;
	}
	return 0;
}
