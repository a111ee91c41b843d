/* SPDX-License-Identifier: Apache-2.0 */
/*
 * espd, the native ESP daemon: carries packets for an agent that tells it how, over one socket
 * (gw_control.h).
 *
 *   espd --socket PATH
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

#include "control.h"
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

static int listen_at(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd, error = 0;
	mode_t mask;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
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

static int serve(const char *path)
{
	static struct gw_control control;
	int listener, signals, error;

	signals = watch_signals();
	if (signals < 0)
		return fail("signals", -errno, "");
	listener = listen_at(path);
	if (listener < 0)
		return fail(path, listener,
			    listener == -EADDRINUSE ? ": another espd listens there" : "");
	/* It reads its configuration now or never. */
	OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG | OPENSSL_INIT_LOAD_CRYPTO_STRINGS, NULL);
	if (confine())
		return EXIT_FAILURE;
	error = gw_control_init(&control);
	if (error)
		return fail("cannot begin", error, "");
	fprintf(stderr, "espd: ready at %s\n", path);
	gw_control_serve(&control, listener, signals);
	gw_control_end(&control);
	close(listener);
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	int error;

	if (argc != 3 || strcmp(argv[1], "--socket") != 0) {
		fprintf(stderr, "usage: espd --socket PATH\n");
		return 2;
	}
	error = IS_SANITIZED ? 0 : gw_lock_memory();
	if (error)
		return fail("cannot lock memory", error, "; it needs CAP_IPC_LOCK");
	return serve(argv[2]);
}
