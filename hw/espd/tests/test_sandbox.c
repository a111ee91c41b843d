/* SPDX-License-Identifier: Apache-2.0 */
/* What a process can still do once it is confined as espd is; root runs this, as shipped. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox.h"
#include "tap.h"

static long open_file(void)
{
	return open("/etc/passwd", O_RDONLY | O_CLOEXEC);
}

static long make_file(void)
{
	return open("/tmp/gw-test-sandbox", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
}

static long run_program(void)
{
	return execve("/bin/true", (char *[]){"true", NULL}, (char *[]){NULL});
}

static long trace_parent(void)
{
	return ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
}

static long load_module(void)
{
	return syscall(SYS_init_module, NULL, 0, "");
}

static long connect_tcp_by_unix(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0);
}

static long become_somebody(void)
{
	return setresuid(1, 1, 1);
}

static long send_signal(void)
{
	return kill(getppid(), 0);
}

static const struct refused {
	const char *name;
	long (*attempt)(void);
	int error;
} refused[] = {
	{"no file is read", open_file, EACCES},
	{"and none is made", make_file, EACCES},
	{"no program is run", run_program, EPERM},
	{"no process is looked into", trace_parent, EPERM},
	{"and none is sent a signal", send_signal, EPERM},
	{"no module is loaded", load_module, EPERM},
	{"no Unix socket is made", connect_tcp_by_unix, EPERM},
	{"no other user is", become_somebody, EPERM},
};

static void test_what_is_refused(void)
{
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		long result = refused[i].attempt();

		tap_check(result == -1 && errno == refused[i].error, refused[i].name);
	}
}

static void test_what_is_left(void)
{
	int udp = socket(AF_INET, SOCK_DGRAM, 0), packet = socket(AF_PACKET, SOCK_RAW, 0);
	int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	tap_check(udp >= 0, "a UDP socket can be made");
	tap_check(packet >= 0, "and a packet socket, which takes CAP_NET_RAW");
	tap_check(tun >= 0 || errno == ENOENT, "/dev/net/tun can be opened");
}

int main(void)
{
	tap_check(gw_drop_privileges() == 0, "capabilities are dropped");
	tap_check(gw_hide_files() == 0, "files are hidden");
	tap_check(gw_filter_system_calls() == 0, "system calls are filtered");
	test_what_is_refused();
	test_what_is_left();
	return tap_end();
}
