/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The kernel's own SAD, asked from XDP (Linux 6.8 and later: net/xfrm/xfrm_state_bpf.c). */
#ifndef GW_XFRM_H
#define GW_XFRM_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_helpers.h>

#include "gw_abi.h"

#define GW_THIS_NAMESPACE -1 /* of the interface that the packet came in over */
#define GW_AF_INET        2
#define GW_AF_INET6       10

/* What the kernel wants to know, laid out as it has it. */
struct bpf_xfrm_state_opts {
	__s32 error;
	__s32 netns_id;
	__u32 mark;
	__be32 destination_be[4]; /* of IPv4 the first */
	__be32 spi_be;
	__u8 protocol;
	__u16 family;
};
GW_ABI_SIZE(struct bpf_xfrm_state_opts, 36);

struct xfrm_state;

extern struct xfrm_state *
bpf_xdp_get_xfrm_state(struct xdp_md *ctx, struct bpf_xfrm_state_opts *opts, __u32 opts__sz) __ksym;
extern void bpf_xdp_xfrm_state_release(struct xfrm_state *x) __ksym;

/* Does the kernel still have this SA? What it has given up, no device has any more. */
static __always_inline int gw_kernel_has_sa(struct xdp_md *ctx, const union gw_address *destination,
					    __be32 spi_be, __u32 family)
{
	struct bpf_xfrm_state_opts wanted = {
		.netns_id = GW_THIS_NAMESPACE,
		.spi_be = spi_be,
		.protocol = IPPROTO_ESP,
		.family = family == 4 ? GW_AF_INET : GW_AF_INET6,
	};
	struct xfrm_state *found;

	if (family == 4)
		wanted.destination_be[0] = destination->words_be[3];
	else
		__builtin_memcpy(wanted.destination_be, destination, 16);
	found = bpf_xdp_get_xfrm_state(ctx, &wanted, sizeof(wanted));
	if (!found)
		return 0;
	bpf_xdp_xfrm_state_release(found);
	return 1;
}

#endif
