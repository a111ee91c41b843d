/*
 * LD_PRELOAD for User-Mode Linux on CPUs with AMX: without it the guest panics with "ptrace set fp regs failed".
 *
 * User-Mode Linux 6.1 to 6.12 sets a child's extended state (NT_X86_XSTATE) from a buffer of fixed size, smaller
 * than what a host with AMX has; such a host answers EFAULT or EINVAL to the short buffer. Here what the guest gives
 * is laid over the child's whole present state: the part behind it is AMX's, which the guest does not use.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef NT_X86_XSTATE
#define NT_X86_XSTATE 0x202
#endif

/* XCR0's features fill 11 KiB on CPUs with AMX. */
#define XSTATE_BYTES 65536

static long set_xstate(pid_t pid, const struct iovec *given)
{
	static char state[XSTATE_BYTES];
	struct iovec whole = { state, sizeof(state) };

	if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, NT_X86_XSTATE, &whole))
		return -1;
	memcpy(state, given->iov_base, given->iov_len < whole.iov_len ? given->iov_len : whole.iov_len);
	return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NT_X86_XSTATE, &whole);
}

/* As glibc's: the PEEK requests return the word that the system call stores. */
long ptrace(enum __ptrace_request request, ...)
{
	va_list arguments;
	pid_t pid;
	void *address, *data;
	long word;

	va_start(arguments, request);
	pid = va_arg(arguments, pid_t);
	address = va_arg(arguments, void *);
	data = va_arg(arguments, void *);
	va_end(arguments);

	switch ((int)request) {
	case PTRACE_SETREGSET:
		if ((long)address == NT_X86_XSTATE)
			return set_xstate(pid, data);
		break;
	case PTRACE_PEEKTEXT:
	case PTRACE_PEEKDATA:
	case PTRACE_PEEKUSER:
		return syscall(SYS_ptrace, request, pid, address, &word) < 0 ? -1 : word;
	}
	return syscall(SYS_ptrace, request, pid, address, data);
}
