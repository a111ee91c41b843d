/* SPDX-License-Identifier: Apache-2.0 */
#include "spd.h"

#include <stdlib.h>

static int compare(const void *a, const void *b)
{
	const struct gw_control_policy *left = *(const struct gw_control_policy *const *)a;
	const struct gw_control_policy *right = *(const struct gw_control_policy *const *)b;

	if (left->order != right->order)
		return left->order < right->order ? -1 : 1;
	return left->policy < right->policy ? -1 : left->policy > right->policy;
}

static bool fill(struct gw_spd_entry *entry, const struct gw_control_policy *policy)
{
	entry->order = policy->order;
	entry->policy = policy->policy;
	entry->tunnel = policy->tunnel;
	entry->device = policy->device;
	entry->action = policy->action;
	entry->acquires = policy->acquire;
	return gw_selectors_init(&entry->selectors, policy->selectors, policy->local_selectors,
				 policy->remote_selectors);
}

bool gw_spd_build(struct gw_spd *spd, const struct gw_control_policy *const *policies,
		  uint32_t count)
{
	const struct gw_control_policy **sorted = calloc((size_t)count + 1, sizeof(*sorted));

	*spd = (struct gw_spd){.entries = calloc((size_t)count + 1, sizeof(*spd->entries))};
	if (!sorted || !spd->entries)
		goto no_memory;
	for (uint32_t i = 0; i < count; i++)
		sorted[i] = policies[i];
	qsort(sorted, count, sizeof(*sorted), compare);
	for (; spd->count < count; spd->count++) {
		const struct gw_control_policy *policy = sorted[spd->count];

		if (!fill(&spd->entries[spd->count], policy))
			goto no_memory;
		spd->is_scoped[policy->device] = policy->device != 0;
	}
	free(sorted);
	return true;
no_memory:
	free(sorted);
	gw_spd_clear(spd);
	return false;
}

void gw_spd_clear(struct gw_spd *spd)
{
	for (uint32_t i = 0; i < spd->count; i++)
		gw_selectors_clear(&spd->entries[i].selectors);
	free(spd->entries);
	*spd = (struct gw_spd){0};
}

const struct gw_spd_entry *gw_spd_inbound(const struct gw_spd *spd, const struct gw_flow *flow,
					  uint32_t device)
{
	uint32_t scope = spd->is_scoped[device] ? device : 0;

	for (uint32_t i = 0; i < spd->count; i++)
		if (spd->entries[i].device == scope &&
		    gw_selectors_permit_inbound(&spd->entries[i].selectors, flow))
			return &spd->entries[i];
	return NULL;
}

const struct gw_spd_entry *gw_spd_outbound(const struct gw_spd *spd, const struct gw_flow *flow,
					   uint32_t device)
{
	/* What goes out matches as its answer matches when it comes in. */
	struct gw_flow answer = gw_flow_reversed(flow);

	return gw_spd_inbound(spd, &answer, device);
}
