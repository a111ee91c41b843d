/* SPDX-License-Identifier: Apache-2.0 */
/* One worker: its SA tables, its crypto library's state, its counters. Owned by one thread. */
#ifndef GW_WORKER_H
#define GW_WORKER_H

#include "entropy.h"
#include "sa.h"
#include "slab.h"

struct gw_tunnel {
	uint32_t count;
	uint32_t refs[GW_MAX_TUNNEL_SAS];
};

struct gw_worker {
	struct gw_hot *inbound;
	struct gw_hot *outbound;
	struct gw_tunnel *tunnels;
	uint32_t inbound_mask;
	uint32_t outbound_sas;
	uint32_t tunnel_count;
	enum gw_crypto crypto;
	bool cold_packets;
	void *multi_buffer; /* ipsec-mb's manager, or NULL */
	struct gw_entropy *entropy;
	struct gw_slab records[GW_MAX_RECORD_LINES + 1]; /* by their lines */
	struct gw_slab rests;
	struct gw_sa *first_event;
	uint64_t now_ns;
	uint64_t drops[GW_DROP_REASON_COUNT];
	uint8_t *scratch; /* AH: headers saved while the ICV is computed, one place per operation */
	struct gw_op ops[GW_CHUNK];
};

/* Every drop of a packet goes through here. */
static inline void gw_drop(struct gw_worker *worker, struct gw_sa *sa, struct gw_packet *packet,
			   enum gw_drop_reason reason)
{
	packet->verdict = (uint8_t)reason;
	worker->drops[reason]++;
	if (sa)
		sa->rest->drops[reason]++;
}

/* Return the place of an SA, or NULL where there is none. */
static inline struct gw_hot *gw_find_hot(const struct gw_worker *worker, uint32_t ref)
{
	struct gw_hot *hot;

	if (ref & GW_REF_INBOUND) {
		uint32_t index = ref & ~GW_REF_INBOUND;

		if (index > worker->inbound_mask)
			return NULL;
		hot = &worker->inbound[index];
	} else {
		if (ref >= worker->outbound_sas)
			return NULL;
		hot = &worker->outbound[ref];
	}
	return hot->sa ? hot : NULL;
}

/* Return the place of an outbound SA, or NULL where there is none. */
static inline struct gw_hot *gw_find_outbound(const struct gw_worker *worker, uint32_t ref)
{
	return ref & GW_REF_INBOUND ? NULL : gw_find_hot(worker, ref);
}

/**
 * gw_forget_events() - drop the events of an SA that goes.
 * @worker: its owner.
 * @sa: the SA.
 */
void gw_forget_events(struct gw_worker *worker, const struct gw_sa *sa);

/**
 * gw_leave_tunnels() - take an SA that goes out of all tunnels.
 * @worker: its owner.
 * @ref: an outbound SA.
 */
void gw_leave_tunnels(struct gw_worker *worker, uint32_t ref);

#endif
