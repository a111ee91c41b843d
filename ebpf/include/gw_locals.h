/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The addresses of this machine. */
#ifndef GW_LOCALS_H
#define GW_LOCALS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "gw_abi.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, union gw_address);
	__type(value, __u32);
	__uint(max_entries, 1024);
} gw_locals SEC(".maps");

static __always_inline int gw_is_local(const union gw_address *address)
{
	return bpf_map_lookup_elem(&gw_locals, address) != NULL;
}

#endif
