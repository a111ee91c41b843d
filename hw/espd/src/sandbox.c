/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef AF_XDP
#define AF_XDP 44
#endif

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "name this architecture's AUDIT_ARCH"
#endif

int gw_lock_memory(void)
{
	struct rlimit none = {0, 0};

	if (setrlimit(RLIMIT_CORE, &none) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		return -errno;
	return mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) ? -errno : 0;
}

/* --- capabilities */

static const uint8_t kept[] = {
	CAP_NET_ADMIN,
	CAP_NET_RAW,
	CAP_BPF,
	CAP_IPC_LOCK,
};

static int drop_bounding_set(uint64_t mask)
{
	for (unsigned int cap = 0; cap < 64; cap++) {
		if (mask >> cap & 1 || prctl(PR_CAPBSET_READ, cap, 0, 0, 0) != 1)
			continue;
		/* Without CAP_SETPCAP there is nothing that could come back either. */
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) && errno != EPERM)
			return -errno;
	}
	return 0;
}

int gw_drop_privileges(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{0}};
	uint64_t mask = 0;

	for (size_t i = 0; i < sizeof(kept); i++)
		mask |= 1ull << kept[i];
	if (drop_bounding_set(mask))
		return -errno;
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (syscall(SYS_capget, &header, data))
		return -errno;
	for (int half = 0; half < 2; half++) {
		data[half].permitted &= (uint32_t)(mask >> 32 * half);
		data[half].effective = data[half].permitted;
		data[half].inheritable = 0;
	}
	if (syscall(SYS_capset, &header, data) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	return 0;
}

/* --- files */

int gw_hide_files(void)
{
	/* The rights of Landlock's first version: all that make, read, write or run a file. */
	struct landlock_ruleset_attr all = {
		.handled_access_fs = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |
				     LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR |
				     LANDLOCK_ACCESS_FS_REMOVE_DIR |
				     LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR |
				     LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
				     LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |
				     LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM,
	};
	struct landlock_path_beneath_attr tun = {
		.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE,
		.parent_fd = open("/dev/net/tun", O_PATH | O_CLOEXEC),
	};
	int rules = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof(all), 0);
	int error = 0;

	if (rules < 0)
		error = -errno;
	/* A machine without the device has no TUN, and espd says so when it is asked for one. */
	else if ((tun.parent_fd >= 0 &&
		  syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &tun, 0)) ||
		 syscall(SYS_landlock_restrict_self, rules, 0))
		error = -errno;
	if (tun.parent_fd >= 0)
		close(tun.parent_fd);
	if (rules >= 0)
		close(rules);
	return error;
}

/* --- system calls */

static const uint16_t allowed[] = {
	/* packets */
	SYS_read,
	SYS_pread64,
	SYS_write,
	SYS_readv,
	SYS_writev,
	SYS_recvmsg,
	SYS_sendmsg,
	SYS_recvmmsg,
	SYS_sendmmsg,
	SYS_recvfrom,
	SYS_sendto,
	SYS_ppoll,
	SYS_bpf,
	/* devices */
	SYS_openat,
	SYS_close,
	SYS_ioctl,
	SYS_fcntl,
	SYS_bind,
	SYS_setsockopt,
	SYS_getsockopt,
	SYS_getsockname,
	SYS_accept4,
	SYS_dup,
	SYS_shutdown,
	SYS_newfstatat,
	SYS_fstat,
	SYS_lseek,
	SYS_pread64,
	SYS_memfd_create,
	SYS_ftruncate,
	SYS_eventfd2,
	SYS_unlinkat,
	/* memory */
	SYS_mmap,
	SYS_munmap,
	SYS_mremap,
	SYS_mprotect,
	SYS_madvise,
	SYS_brk,
	SYS_mlock,
	SYS_munlock,
	/* threads */
	SYS_clone,
	SYS_clone3,
	SYS_futex,
	SYS_set_robust_list,
	SYS_rseq,
	SYS_sched_setaffinity,
	SYS_sched_getaffinity,
	SYS_sched_yield,
	SYS_getcpu,
	SYS_prctl,
	SYS_exit,
	SYS_exit_group,
	SYS_getpid,
	SYS_gettid,
	SYS_tgkill,
	SYS_geteuid,
	/* time and signals */
	SYS_clock_gettime,
	SYS_clock_nanosleep,
	SYS_rt_sigprocmask,
	SYS_rt_sigaction,
	SYS_rt_sigreturn,
	SYS_sigaltstack,
	SYS_restart_syscall,
	SYS_getrandom,
#ifdef SYS_poll
	SYS_poll,
#endif
};

/* Of socket(2): nothing that reaches another process, or TCP. */
static const uint8_t families[] = {AF_INET, AF_INET6, AF_PACKET, AF_NETLINK, AF_XDP};

#define ALLOWED_COUNT  (sizeof(allowed) / sizeof(allowed[0]))
#define FAMILIES_COUNT (sizeof(families) / sizeof(families[0]))
#define FIELD(name)    ((uint32_t)offsetof(struct seccomp_data, name))

int gw_filter_system_calls(void)
{
	struct sock_filter code[ALLOWED_COUNT * 2 + FAMILIES_COUNT * 2 + 9];
	struct sock_fprog program = {.filter = code};
	uint32_t at = 0;

	code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(arch));
	code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
	code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(nr));
	for (size_t i = 0; i < ALLOWED_COUNT; i++) {
		code[at++] =
			(struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], 0, 1);
		code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	/* Refused, not killed: the packets of every tunnel depend on this process. */
	code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 1, 0);
	code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(args[0]));
	for (size_t i = 0; i < FAMILIES_COUNT; i++) {
		code[at++] =
			(struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, families[i], 0, 1);
		code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	program.len = (unsigned short)at;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) ? -errno : 0;
}
