/* SPDX-License-Identifier: Apache-2.0 */
/*
 * espd, the native ESP daemon: carries packets for an agent that tells it how, over one socket
 * (gw_control.h).
 *
 *   espd --socket PATH                 begin, with nothing
 *   espd --socket PATH --take-over     take everything over from the espd there, without losing a packet
 *   espd --version                     which build this is, as HELLO tells of the one that runs
 *
 * It needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_IPC_LOCK, and CAP_BPF for AF_XDP. It lives on when the
 * agent dies, and ends when it is told to, by SHUT_DOWN or SIGTERM; with it end its SAs.
 */
#include <errno.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "build_id.h"
#include "link_state.h"
#include "succession.h"
#include "sandbox.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED true
#else
#define IS_SANITIZED false
#endif

static int fail(const char *what, int error, const char *advice)
{
	fprintf(stderr, "espd: %s: %s%s\n", what, strerror(-error), advice);
	return EXIT_FAILURE;
}

/* The espd that runs carries on. */
#define NOT_TAKEN_OVER 3

static bool set_path(struct sockaddr_un *address, const char *path)
{
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(address->sun_path))
		return false;
	strcpy(address->sun_path, path);
	return true;
}

/* Connect to the espd whose place this one takes. */
static int connect_to(const char *path)
{
	struct sockaddr_un address;
	int fd;

	if (!set_path(&address, path))
		return -ENAMETOOLONG;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	return -errno;
}

static int listen_at(const char *path)
{
	struct sockaddr_un address;
	int fd, error = 0;
	mode_t mask;

	if (!set_path(&address, path))
		return -ENAMETOOLONG;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	mask = umask(0177);
	/* Where another espd listens, this one has no business; a dead one's socket is in the way. */
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		error = -EADDRINUSE;
	else if (errno == ECONNREFUSED)
		unlink(path);
	if (!error && (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 4)))
		error = -errno;
	umask(mask);
	if (!error)
		return fd;
	close(fd);
	return error;
}

static int watch_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	/* Blocked in every thread: the control thread reads them. */
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return -errno;
	return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* Go into the sandbox, having opened what is only opened once. */
static int confine(void)
{
	int error = gw_drop_privileges();

	if (error)
		return fail("cannot drop privileges", error, "");
	gw_link_keep_counters();
	/* Sanitizers read files and need more system calls; theirs is no build to be used. */
	if (IS_SANITIZED)
		return 0;
	error = gw_hide_files();
	if (error == -ENOSYS || error == -EOPNOTSUPP)
		fprintf(stderr, "espd: this kernel has no Landlock: files are not hidden\n");
	else if (error)
		return fail("cannot hide files", error, "");
	error = gw_filter_system_calls();
	if (error)
		return fail("cannot filter system calls", error, "");
	return 0;
}

/* Have the control socket and everything else from the espd that runs; return the socket. */
static int take_over(struct gw_control *control, int other)
{
	char why[GW_REASON_BYTES] = "";
	int listener = -1;

	if (gw_take_over(control, other, &listener, why)) {
		close(other);
		return listener;
	}
	fprintf(stderr, "espd: not taken over: %s; the espd that runs carries on\n", why);
	/* Without a last look at sockets, rings and memory: they are the other's. */
	_exit(NOT_TAKEN_OVER);
}

static int serve(const char *path, bool takes_over)
{
	static struct gw_control control;
	int from, signals, error;

	signals = watch_signals();
	if (signals < 0)
		return fail("signals", -errno, "");
	from = takes_over ? connect_to(path) : listen_at(path);
	if (from < 0)
		return fail(path, from, from == -EADDRINUSE ? ": another espd listens there" : "");
	/* It reads its configuration now or never. */
	OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG | OPENSSL_INIT_LOAD_CRYPTO_STRINGS, NULL);
	if (confine())
		return EXIT_FAILURE;
	error = gw_control_init(&control);
	if (error)
		return fail("cannot begin", error, "");
	if (takes_over)
		from = take_over(&control, from);
	fprintf(stderr, "espd: ready at %s\n", path);
	gw_control_serve(&control, from, signals);
	gw_control_end(&control);
	close(from);
	return EXIT_SUCCESS;
}

static int tell_version(void)
{
	char build[GW_BUILD_BYTES];

	gw_build_id(build);
	printf("%s\n", build);
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	bool takes_over = argc == 4 && strcmp(argv[3], "--take-over") == 0;
	int error;

	if (argc == 2 && strcmp(argv[1], "--version") == 0)
		return tell_version();
	if ((argc != 3 && !takes_over) || strcmp(argv[1], "--socket") != 0) {
		fprintf(stderr, "usage: espd --socket PATH [--take-over] | --version\n");
		return 2;
	}
	error = IS_SANITIZED ? 0 : gw_lock_memory();
	if (error)
		return fail("cannot lock memory", error, "; it needs CAP_IPC_LOCK");
	return serve(argv[2], takes_over);
}
