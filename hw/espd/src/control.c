/* SPDX-License-Identifier: Apache-2.0 */
#include "control.h"

#include <errno.h>
#include <poll.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bytes.h"
#include "succession.h"

/* The agent, one that is about to take over, and some that never say HELLO. */
#define CONNECTIONS 4
/* An agent that reads no replies for so long is given up. */
#define REPLY_TIMEOUT_MS  5000
#define SEND_BUFFER_BYTES (1 << 20)

struct server {
	struct gw_control *control;
	int listener;
	int connections[CONNECTIONS]; /* or -1 */
	int agent;                    /* the one that said HELLO last, or -1 */
	alignas(8) uint8_t request[GW_MESSAGE_BYTES + 1];
	union gw_any_reply reply;
};

/* --- connections */

static void hang_up(struct server *server, int *connection)
{
	if (*connection < 0)
		return;
	if (server->agent == *connection) {
		server->agent = -1;
		gw_control_forget(server->control);
	}
	close(*connection);
	*connection = -1;
}

static bool is_trusted(int connection)
{
	struct ucred peer;
	socklen_t bytes = sizeof(peer);

	return getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0 &&
	       (peer.uid == 0 || peer.uid == geteuid());
}

static void admit(struct server *server, int listener)
{
	int connection = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	int bytes = SEND_BUFFER_BYTES;

	if (connection < 0)
		return;
	setsockopt(connection, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	for (int i = 0; i < CONNECTIONS && is_trusted(connection); i++)
		if (server->connections[i] < 0) {
			server->connections[i] = connection;
			return;
		}
	close(connection);
}

/* Who says HELLO is the agent from now on; what the former one did not commit is forgotten. */
static void take_over(struct server *server, int connection)
{
	for (int i = 0; i < CONNECTIONS; i++)
		if (server->connections[i] == server->agent && server->agent != connection)
			hang_up(server, &server->connections[i]);
	server->agent = connection;
}

/* --- messages */

static void keep_descriptors(struct gw_control *control, struct msghdr *message)
{
	int kept = 0;

	for (struct cmsghdr *at = CMSG_FIRSTHDR(message); at; at = CMSG_NXTHDR(message, at)) {
		size_t count = (at->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		const uint8_t *data = CMSG_DATA(at);

		if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, data + i * sizeof(fd), sizeof(fd));
			if (kept < GW_MAX_DESCRIPTORS)
				control->descriptors[kept++] = fd;
			else
				close(fd);
		}
	}
}

static void close_descriptors(struct gw_control *control)
{
	for (int i = 0; i < GW_MAX_DESCRIPTORS; i++) {
		if (control->descriptors[i] >= 0)
			close(control->descriptors[i]);
		control->descriptors[i] = -1;
	}
}

/* Send a message whole; wait a little for an agent that is busy. */
static bool say(int connection, const void *message, size_t bytes, int timeout_ms)
{
	struct pollfd fds = {.fd = connection, .events = POLLOUT};

	for (;;) {
		if (send(connection, message, bytes, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
			return true;
		if ((errno != EAGAIN && errno != EINTR) || poll(&fds, 1, timeout_ms) <= 0)
			return false;
	}
}

/* Do one request. Return false when the connection is of no use any more. */
static bool serve_one(struct server *server, int connection)
{
	struct gw_control *control = server->control;
	alignas(8) char space[CMSG_SPACE(sizeof(int) * GW_MAX_DESCRIPTORS)];
	struct iovec piece = {server->request, sizeof(server->request)};
	struct msghdr message = {
		.msg_iov = &piece,
		.msg_iovlen = 1,
		.msg_control = space,
		.msg_controllen = sizeof(space),
	};
	ssize_t got = recvmsg(connection, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	bool was_greeted = control->is_greeted && connection == server->agent;
	size_t bytes;

	if (got <= 0)
		return got < 0 && (errno == EAGAIN || errno == EINTR);
	if (gw_succession_is_ask(server->request, (size_t)got)) {
		if (gw_give_over(control, connection, server->listener,
				 (const void *)server->request))
			gw_control_vanish(control);
		return false;
	}
	keep_descriptors(control, &message);
	control->is_greeted = was_greeted;
	bytes = gw_control_handle(control, server->request, (size_t)got, &server->reply);
	close_descriptors(control);
	gw_wipe(server->request, (size_t)got);
	if (control->is_greeted && !was_greeted)
		take_over(server, connection);
	control->is_greeted = server->agent >= 0;
	return say(connection, &server->reply, bytes, REPLY_TIMEOUT_MS);
}

/* --- events */

/* Pass on what threads have to tell, as long as the agent takes it; the rest waits for it. */
static void pass_on_events(struct server *server)
{
	struct gw_daemon *daemon = &server->control->daemon;
	eventfd_t count;

	eventfd_read(daemon->event_fd, &count);
	for (uint32_t i = 0; i < daemon->thread_count; i++) {
		struct gw_ring *ring = &daemon->threads[i]->events;
		union gw_any_event *event;

		while (server->agent >= 0 && (event = gw_ring_readable(ring)) != NULL) {
			bool is_told = event->header.type != GW_MESSAGE_EVENT_SA ||
				       gw_sa_note_event(server->control, &event->sa);

			if (is_told && send(server->agent, event, event->header.bytes,
					    MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
				return;
			gw_ring_take(ring);
		}
	}
}

static bool has_events(const struct gw_control *control)
{
	for (uint32_t i = 0; i < control->daemon.thread_count; i++)
		if (gw_ring_readable(&control->daemon.threads[i]->events))
			return true;
	return false;
}

/* --- the loop */

static void serve_connections(struct server *server, const struct pollfd *fds)
{
	for (int i = 0; i < CONNECTIONS; i++) {
		int *connection = &server->connections[i];

		/* It may be another one by now, or gone. */
		if (*connection < 0 || fds[i].fd != *connection || !(fds[i].revents & ~POLLOUT))
			continue;
		if (!serve_one(server, *connection))
			hang_up(server, connection);
	}
}

int gw_control_serve(struct gw_control *control, int listener, int signals)
{
	struct server *server = calloc(1, sizeof(*server));
	struct pollfd fds[CONNECTIONS + 3];

	if (!server)
		return -ENOMEM;
	server->control = control;
	server->listener = listener;
	server->agent = -1;
	for (int i = 0; i < CONNECTIONS; i++)
		server->connections[i] = -1;
	fds[CONNECTIONS] = (struct pollfd){.fd = listener, .events = POLLIN};
	fds[CONNECTIONS + 1] = (struct pollfd){.fd = control->daemon.event_fd, .events = POLLIN};
	fds[CONNECTIONS + 2] = (struct pollfd){.fd = signals, .events = POLLIN};
	while (!control->ends) {
		bool waits = server->agent >= 0 && has_events(control);

		for (int i = 0; i < CONNECTIONS; i++) {
			bool is_agent = server->connections[i] == server->agent;

			fds[i] = (struct pollfd){.fd = server->connections[i]};
			fds[i].events = (short)(POLLIN | (waits && is_agent ? POLLOUT : 0));
		}
		if (poll(fds, CONNECTIONS + 3, -1) < 0 && errno != EINTR)
			break;
		if (fds[CONNECTIONS + 2].revents)
			break;
		serve_connections(server, fds);
		pass_on_events(server);
		if (fds[CONNECTIONS].revents & POLLIN)
			admit(server, listener);
	}
	for (int i = 0; i < CONNECTIONS; i++)
		hang_up(server, &server->connections[i]);
	gw_wipe(server, sizeof(*server));
	free(server);
	return 0;
}
