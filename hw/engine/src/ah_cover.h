/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the ICV of AH covers of the headers before it: mutable fields zeroed, predictable ones
 * predicted (RFC 4302 §3.3.3.1, Appendix A).
 *
 *   IPv4:  version, IHL |(TOS)| length | identification |(flags, offset)|(TTL)| protocol
 * |(checksum)| source | destination* | options IPv6:  version |(class, flow label)| length | next
 * header |(hop limit)| source | destination* | extension headers
 *
 * In parentheses: zero in the ICV. With a star: where a source route or a routing header is still
 * to be followed, what the receiver will see.
 */
#ifndef GW_AH_COVER_H
#define GW_AH_COVER_H

#include <stdbool.h>
#include <stdint.h>

#include "gw_drop_reasons.h"

/**
 * gw_ah_cover() - turn the headers before AH into what the ICV covers of them, in place.
 * @ip: IP header with options or extension headers; lengths and protocol as they go out.
 * @bytes: of them: an IPv4 header of its IHL, or a chain that ends there.
 * @sending: predict what arrives; else they have arrived.
 *
 * Return: GW_DROP_NONE, MALFORMED, UNSUPPORTED or FRAGMENT; then some of it is changed already.
 */
enum gw_drop_reason gw_ah_cover(uint8_t *ip, uint32_t bytes, bool sending);

#endif
