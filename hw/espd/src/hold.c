/* SPDX-License-Identifier: Apache-2.0 */
#include "hold.h"

#include "outbound.h"
#include "thread.h"

#define NS_PER_SECOND 1000000000ull
/* As long as IKE may take; and, where nothing was asked for, as an SA of the peer's making takes. */
#define ASKED_NS   (30 * NS_PER_SECOND)
#define UNASKED_NS (1 * NS_PER_SECOND)

void gw_hold(struct gw_thread *thread, const struct gw_packet *packet,
	     const struct gw_decision *decision)
{
	struct gw_hold *hold = &thread->hold;
	uint32_t alike = 0;

	for (uint32_t i = 0; i < hold->count; i++)
		alike += hold->packets[i].policy == decision->policy;
	if (hold->count == GW_HELD_PACKETS || alike >= GW_HELD_ALIKE) {
		gw_thread_drop(thread, packet, GW_DROP_NO_SA);
		return;
	}
	hold->packets[hold->count++] = (struct gw_held){
		.packet = *packet,
		.until_ns = thread->now_ns + (decision->acquires ? ASKED_NS : UNASKED_NS),
		.policy = decision->policy,
	};
}

/* Look a packet up again. Return whether it is to be held on. */
static bool try_again(struct gw_thread *thread, struct gw_held *held)
{
	struct gw_decision decision = {.verdict = GW_VERDICT_NO_ENTRY};
	struct gw_packet *packet = &held->packet;
	struct gw_flow flow;

	if (gw_parse_flow(packet->data, packet->length, &flow) == GW_DROP_NONE)
		decision = gw_decide(thread, &flow, packet->reserved);
	if (decision.verdict == GW_VERDICT_NO_SA)
		return true;
	/* Another entry than the one it waited for: whoever sent it sends again. */
	if (decision.verdict == GW_VERDICT_SEAL)
		gw_seal_by(thread, packet, &decision);
	else
		gw_thread_drop(thread, packet, GW_DROP_NO_SA);
	return false;
}

void gw_release_held(struct gw_thread *thread)
{
	struct gw_hold *hold = &thread->hold;
	bool is_new = hold->generation != thread->generation;
	uint32_t kept = 0;

	hold->generation = thread->generation;
	for (uint32_t i = 0; i < hold->count; i++) {
		struct gw_held *held = &hold->packets[i];

		if (is_new && !try_again(thread, held))
			continue;
		if (held->until_ns > thread->now_ns)
			hold->packets[kept++] = *held;
		else
			gw_thread_drop(thread, &held->packet, GW_DROP_NO_SA);
	}
	hold->count = kept;
	gw_seal_all(thread);
}
