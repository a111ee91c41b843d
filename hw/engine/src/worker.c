/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a worker, and what it has to tell. */
#include "worker.h"

#include <stdlib.h>

#include "ah.h"
#include "crypto.h"

#define MAX_INBOUND_BITS 24u
#define MAX_TABLE        (1u << 24)

static void *new_lines(size_t bytes)
{
	void *memory = aligned_alloc(GW_LINE, (bytes + GW_LINE - 1) / GW_LINE * GW_LINE);

	if (memory)
		memset(memory, 0, bytes);
	return memory;
}

struct gw_worker *gw_worker_new(const struct gw_worker_config *config, enum gw_error *error)
{
	struct gw_worker *worker;

	*error = GW_E_INVALID;
	if (config->inbound_bits > MAX_INBOUND_BITS || config->outbound_sas > MAX_TABLE ||
	    config->tunnels > MAX_TABLE || config->crypto > GW_CRYPTO_OPENSSL)
		return NULL;
	*error = GW_E_MEMORY;
	worker = new_lines(sizeof(*worker));
	if (!worker)
		return NULL;
	for (size_t lines = 0; lines <= GW_MAX_RECORD_LINES; lines++)
		worker->records[lines].bytes = lines * GW_LINE;
	worker->rests.bytes = sizeof(struct gw_sa_rest);
	worker->inbound_mask = (1u << config->inbound_bits) - 1;
	worker->outbound_sas = config->outbound_sas;
	worker->tunnel_count = config->tunnels;
	worker->crypto = config->crypto;
	worker->cold_packets = config->cold_packets != 0;
	worker->inbound = new_lines(((size_t)worker->inbound_mask + 1) * sizeof(struct gw_hot));
	worker->outbound = new_lines(((size_t)config->outbound_sas + 1) * sizeof(struct gw_hot));
	worker->tunnels = calloc((size_t)config->tunnels + 1, sizeof(struct gw_tunnel));
	worker->scratch = new_lines(gw_ah_scratch_bytes());
	worker->entropy = gw_entropy_new(config->seed);
	if (worker->inbound && worker->outbound && worker->tunnels && worker->scratch &&
	    worker->entropy)
		*error = gw_crypto_start(worker);
	if (*error == GW_OK)
		return worker;
	gw_worker_free(worker);
	return NULL;
}

static void remove_all(struct gw_worker *worker, const struct gw_hot *table, size_t count)
{
	for (size_t i = 0; table && i < count; i++)
		if (table[i].sa)
			gw_sa_remove(worker, table[i].sa->rest->ref);
}

void gw_worker_free(struct gw_worker *worker)
{
	if (!worker)
		return;
	remove_all(worker, worker->inbound, (size_t)worker->inbound_mask + 1);
	remove_all(worker, worker->outbound, worker->outbound_sas);
	gw_crypto_stop(worker);
	for (size_t lines = 0; lines <= GW_MAX_RECORD_LINES; lines++)
		gw_slab_end(&worker->records[lines]);
	gw_slab_end(&worker->rests);
	gw_entropy_free(worker->entropy);
	free(worker->inbound);
	free(worker->outbound);
	free(worker->tunnels);
	free(worker->scratch);
	gw_wipe(worker, sizeof(*worker));
	free(worker);
}

void gw_worker_drops(const struct gw_worker *worker, uint64_t drops[GW_DROP_REASON_COUNT])
{
	memcpy(drops, worker->drops, sizeof(worker->drops));
}

/* --- events: a list of the SAs that have any */

void gw_forget_events(struct gw_worker *worker, const struct gw_sa *sa)
{
	struct gw_sa **link = &worker->first_event;

	while (*link && *link != sa)
		link = &(*link)->rest->next_event;
	if (*link)
		*link = sa->rest->next_event;
}

size_t gw_worker_drain_events(struct gw_worker *worker, struct gw_event *events, size_t max)
{
	size_t count = 0;

	while (worker->first_event && count < max) {
		struct gw_sa *sa = worker->first_event;

		worker->first_event = sa->rest->next_event;
		events[count] = (struct gw_event){
			.cookie = sa->rest->cookie,
			.ref = sa->rest->ref,
			.kinds = sa->rest->events,
			.port = sa->rest->source_port,
			.family = sa->rest->family,
		};
		memcpy(events[count].address, sa->rest->source, sizeof(sa->rest->source));
		sa->rest->events = 0;
		sa->rest->next_event = NULL;
		count++;
	}
	return count;
}
