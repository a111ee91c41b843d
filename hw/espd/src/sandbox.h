/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What espd may still do once it runs. It reads packets of strangers and holds keys: whoever takes
 * it over shall find little.
 */
#ifndef GW_SANDBOX_H
#define GW_SANDBOX_H

/**
 * gw_lock_memory() - keep keys from swap, core dumps and debuggers.
 *
 * Pages are locked as they are touched, so that large tables cost what is used of them.
 * Return: 0, or -errno.
 */
int gw_lock_memory(void);

/**
 * gw_drop_privileges() - keep CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_IPC_LOCK, of those there
 * are, and nothing else; gain no new ones ever.
 *
 * Return: 0, or -errno.
 */
int gw_drop_privileges(void);

/**
 * gw_hide_files() - open nothing but /dev/net/tun any more (Landlock).
 *
 * Return: 0; or -errno, -ENOSYS or -EOPNOTSUPP where the kernel has no Landlock.
 */
int gw_hide_files(void);

/**
 * gw_filter_system_calls() - refuse, with EPERM, all system calls that espd has no use for.
 *
 * Call in the only thread, behind all others.
 * Return: 0, or -errno.
 */
int gw_filter_system_calls(void);

#endif
