/* SPDX-License-Identifier: Apache-2.0 */
/* Tunnels: which outbound SAs carry a tunnel's packets now. One at a time, or several (RFC 9611). */
#include "worker.h"

void gw_leave_tunnels(struct gw_worker *worker, uint32_t ref)
{
	for (uint32_t i = 0; i < worker->tunnel_count; i++) {
		struct gw_tunnel *tunnel = &worker->tunnels[i];
		uint32_t kept = 0;

		for (uint32_t at = 0; at < tunnel->count; at++)
			if (tunnel->refs[at] != ref)
				tunnel->refs[kept++] = tunnel->refs[at];
		tunnel->count = kept;
	}
}

enum gw_error gw_tunnel_set(struct gw_worker *worker, uint32_t tunnel, const uint32_t *refs,
			    size_t count)
{
	if (tunnel >= worker->tunnel_count || count > GW_MAX_TUNNEL_SAS)
		return GW_E_INVALID;
	for (size_t i = 0; i < count; i++)
		if (!gw_find_outbound(worker, refs[i]))
			return GW_E_NO_SA;
	memcpy(worker->tunnels[tunnel].refs, refs, count * sizeof(*refs));
	worker->tunnels[tunnel].count = (uint32_t)count;
	return GW_OK;
}

uint32_t gw_tunnel_sa(const struct gw_worker *worker, uint32_t tunnel, uint32_t flow_hash)
{
	const struct gw_tunnel *found;

	if (tunnel >= worker->tunnel_count)
		return GW_NO_REF;
	found = &worker->tunnels[tunnel];
	if (found->count == 0)
		return GW_NO_REF;
	/* A fair share of the hash's range to each, without a division. */
	return found->refs[(uint64_t)flow_hash * found->count >> 32];
}
