/* SPDX-License-Identifier: Apache-2.0 */
/* Records of a hand-over, one datagram each; see succession.h. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bytes.h"
#include "succession.h"

#define SEND_TIMEOUT_MS 1000

static bool fail(struct gw_succession *talk, const char *why)
{
	snprintf(talk->why, sizeof(talk->why), "%s", why);
	return false;
}

static bool wait_for(const struct gw_succession *talk, short events, int timeout_ms)
{
	struct pollfd fds = {.fd = talk->connection, .events = events};
	int ready;

	do
		ready = poll(&fds, 1, timeout_ms);
	while (ready < 0 && errno == EINTR);
	return ready > 0;
}

bool gw_succession_put(struct gw_succession *talk, void *record, const int *fds, size_t fd_count)
{
	_Alignas(8) char space[CMSG_SPACE(sizeof(int) * GW_SUCCESSION_DESCRIPTORS)] = {0};
	struct gw_succession_header *header = record;
	struct iovec piece = {record, header->bytes};
	struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
	struct cmsghdr *rights = (struct cmsghdr *)space;
	int *to = (int *)CMSG_DATA(rights);
	size_t given = 0;

	header->magic = GW_SUCCESSION_MAGIC;
	header->descriptors = 0;
	for (size_t i = 0; i < fd_count; i++) {
		if (fds[i] < 0)
			continue;
		header->descriptors |= 1u << i;
		to[given++] = fds[i];
	}
	if (given) {
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(given * sizeof(int));
		message.msg_control = space;
		message.msg_controllen = CMSG_SPACE(given * sizeof(int));
	}
	for (;;) {
		if (sendmsg(talk->connection, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
			return true;
		if ((errno != EAGAIN && errno != EINTR) ||
		    !wait_for(talk, POLLOUT, SEND_TIMEOUT_MS))
			return fail(talk, "the other espd takes nothing more");
	}
}

bool gw_succession_say(struct gw_succession *talk, enum gw_succession_kind kind)
{
	struct gw_succession_plain plain = {.header = {.kind = kind, .bytes = sizeof(plain)}};

	return gw_succession_put(talk, &plain, NULL, 0);
}

void gw_succession_refuse(struct gw_succession *talk, const char *reason)
{
	struct gw_succession_refused refused = {
		.header = {.kind = GW_SUCCESSION_REFUSED, .bytes = sizeof(refused)},
	};

	snprintf(refused.reason, sizeof(refused.reason), "%s", reason);
	gw_succession_put(talk, &refused, NULL, 0);
}

void gw_succession_close_fds(struct gw_succession *talk)
{
	for (int i = 0; i < GW_SUCCESSION_DESCRIPTORS; i++) {
		if (talk->fds[i] >= 0)
			close(talk->fds[i]);
		talk->fds[i] = -1;
	}
}

/* Put descriptors where the header says; close what it does not speak of. */
static bool place_fds(struct gw_succession *talk, const struct msghdr *message, uint32_t mask)
{
	uint32_t placed = 0;
	int at = 0;

	for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part;
	     part = CMSG_NXTHDR((struct msghdr *)(uintptr_t)message, part)) {
		size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(part) + i * sizeof(fd), sizeof(fd));
			while (at < GW_SUCCESSION_DESCRIPTORS && !(mask >> at & 1))
				at++;
			if (at < GW_SUCCESSION_DESCRIPTORS)
				talk->fds[at++] = fd;
			else
				close(fd);
		}
	}
	for (int i = 0; i < GW_SUCCESSION_DESCRIPTORS; i++)
		placed |= talk->fds[i] >= 0 ? 1u << i : 0;
	return placed == mask;
}

const struct gw_succession_header *gw_succession_get(struct gw_succession *talk, int timeout_ms)
{
	_Alignas(8) char space[CMSG_SPACE(sizeof(int) * GW_SUCCESSION_DESCRIPTORS)];
	struct gw_succession_header *header = (void *)talk->record;
	struct iovec piece = {talk->record, sizeof(talk->record)};
	struct msghdr message = {
		.msg_iov = &piece,
		.msg_iovlen = 1,
		.msg_control = space,
		.msg_controllen = sizeof(space),
	};
	ssize_t got;

	gw_succession_close_fds(talk);
	if (!wait_for(talk, POLLIN, timeout_ms)) {
		fail(talk, "the other espd says nothing");
		return NULL;
	}
	got = recvmsg(talk->connection, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (got <= 0) {
		fail(talk, "the other espd is gone");
		return NULL;
	}
	if (!place_fds(talk, &message, got < (ssize_t)sizeof(*header) ? 0 : header->descriptors) ||
	    message.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || got < (ssize_t)sizeof(*header) ||
	    header->magic != GW_SUCCESSION_MAGIC || header->bytes != (size_t)got) {
		fail(talk, "the other espd does not speak of a hand-over");
		return NULL;
	}
	if (header->kind == GW_SUCCESSION_REFUSED) {
		const struct gw_succession_refused *refused = (const void *)talk->record;

		snprintf(talk->why, sizeof(talk->why), "%.*s",
			 got < (ssize_t)sizeof(*refused) ? 0 : GW_REASON_BYTES - 1,
			 refused->reason);
		return NULL;
	}
	return header;
}

const void *gw_succession_expect(struct gw_succession *talk, enum gw_succession_kind kind,
				 size_t bytes, int timeout_ms)
{
	const struct gw_succession_header *header = gw_succession_get(talk, timeout_ms);

	if (!header)
		return NULL;
	if (header->kind == kind && header->bytes == bytes)
		return header;
	fail(talk, "the other espd speaks out of turn");
	return NULL;
}

bool gw_succession_is_ask(const void *message, size_t bytes)
{
	struct gw_succession_header header;

	if (bytes != sizeof(struct gw_succession_ask))
		return false;
	memcpy(&header, message, sizeof(header));
	return header.magic == GW_SUCCESSION_MAGIC && header.kind == GW_SUCCESSION_ASK;
}
