/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The Internet checksum: changed for one word (RFC 1624), or made for a message (RFC 1071). */
#ifndef GW_CSUM_H
#define GW_CSUM_H

#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Add the carries of a sum until it has 16 bits. */
static __always_inline __u16 gw_csum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Return a checksum after one of the words it covers has changed (RFC 1624 equation 3). */
static __always_inline __be16 gw_csum_replace(__be16 checksum_be, __be16 from_be, __be16 to_be)
{
	__u64 sum = (__u16)~checksum_be + (__u64)(__u16)~from_be + to_be;

	return ~gw_csum_fold(sum);
}

/* Add octets to a sum. `bytes` is a constant, a multiple of 4 and at most 512 (bpf_csum_diff). */
static __always_inline __u64 gw_csum_add(__u64 sum, void *octets, __u32 bytes)
{
	__s64 added = bpf_csum_diff(NULL, 0, octets, bytes, 0);

	return sum + (__u32)added;
}

#endif
