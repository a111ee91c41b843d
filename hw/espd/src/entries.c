/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "control.h"

/* --- keys */

static int compare_policies(const void *a, const void *b)
{
	uint32_t left = ((const struct gw_control_policy *)a)->policy;
	uint32_t right = ((const struct gw_control_policy *)b)->policy;

	return left < right ? -1 : left > right;
}

static int compare_routes(const void *a, const void *b)
{
	const struct gw_control_route *left = a, *right = b;

	if (left->family != right->family)
		return left->family < right->family ? -1 : 1;
	if (left->prefix_bits != right->prefix_bits)
		return left->prefix_bits < right->prefix_bits ? -1 : 1;
	return memcmp(left->destination, right->destination, sizeof(left->destination));
}

static int compare_neighbours(const void *a, const void *b)
{
	const struct gw_control_neighbour *left = a, *right = b;

	if (left->device != right->device)
		return left->device < right->device ? -1 : 1;
	if (left->family != right->family)
		return left->family < right->family ? -1 : 1;
	return memcmp(left->address, right->address, sizeof(left->address));
}

void gw_entries_init(struct gw_control *control)
{
	control->policies.staged.compare = control->policies.committed.compare = compare_policies;
	control->routes.staged.compare = control->routes.committed.compare = compare_routes;
	control->neighbours.staged.compare = control->neighbours.committed.compare =
		compare_neighbours;
}

/* --- staging: a record in force is never changed, another takes its place */

/* Free a record that was staged, unless it is in force. */
static void drop_staged(const struct gw_staged *entries, void *item)
{
	if (item && gw_table_find(&entries->committed, item) != item)
		free(item);
}

static int set(struct gw_staged *entries, const void *message, size_t bytes,
	       union gw_any_reply *reply)
{
	void *item = malloc(bytes), *replaced = NULL;

	if (item)
		memcpy(item, message, bytes);
	if (!item || !gw_table_put(&entries->staged, item, &replaced)) {
		free(item);
		return gw_refuse(reply, GW_E_MEMORY, "no memory");
	}
	drop_staged(entries, replaced);
	entries->is_changed = true;
	return GW_OK;
}

static int remove_entry(struct gw_staged *entries, const void *key, union gw_any_reply *reply)
{
	void *item = gw_table_take(&entries->staged, key);

	if (!item)
		return gw_refuse(reply, GW_E_NO_ENTRY, "no such entry");
	drop_staged(entries, item);
	entries->is_changed = true;
	return GW_OK;
}

static void revert(struct gw_staged *entries)
{
	gw_table_free_others(&entries->staged, &entries->committed);
	/* There is room: it had at least as many when they were committed, and never gives any back. */
	gw_table_copy(&entries->staged, &entries->committed);
}

void gw_entries_revert(struct gw_control *control)
{
	revert(&control->policies);
	revert(&control->routes);
	revert(&control->neighbours);
}

static bool commit_one(struct gw_staged *entries)
{
	struct gw_table old = {.compare = entries->committed.compare};

	if (!entries->is_changed)
		return true;
	if (!gw_table_copy(&old, &entries->committed))
		return false;
	if (!gw_table_copy(&entries->committed, &entries->staged)) {
		free(old.items);
		return false;
	}
	gw_table_free_others(&old, &entries->committed);
	free(old.items);
	return true;
}

/* --- requests */

int gw_policy_set(struct gw_control *control, const void *message, union gw_any_reply *reply)
{
	const struct gw_control_policy *policy = message;

	if (policy->tunnel > control->daemon.config.tunnels)
		return gw_refuse(reply, GW_E_INVALID, "there are not so many tunnels");
	return set(&control->policies, policy, sizeof(*policy), reply);
}

int gw_policy_remove(struct gw_control *control, const void *message, union gw_any_reply *reply)
{
	const struct gw_control_policy_name *name = message;
	const struct gw_control_policy key = {.policy = name->policy};

	return remove_entry(&control->policies, &key, reply);
}

int gw_route_set(struct gw_control *control, const void *message, union gw_any_reply *reply)
{
	return set(&control->routes, message, sizeof(struct gw_control_route), reply);
}

int gw_route_remove(struct gw_control *control, const void *message, union gw_any_reply *reply)
{
	return remove_entry(&control->routes, message, reply);
}

int gw_neighbour_set(struct gw_control *control, const void *message, union gw_any_reply *reply)
{
	return set(&control->neighbours, message, sizeof(struct gw_control_neighbour), reply);
}

int gw_neighbour_remove(struct gw_control *control, const void *message, union gw_any_reply *reply)
{
	return remove_entry(&control->neighbours, message, reply);
}

/* --- what threads look at: built anew where it has changed */

static void free_spd(const struct gw_spd *spd)
{
	if (spd)
		gw_spd_clear((struct gw_spd *)(uintptr_t)spd);
	free((void *)(uintptr_t)spd);
}

static void free_routes(const struct gw_routes *routes)
{
	if (routes)
		gw_routes_clear((struct gw_routes *)(uintptr_t)routes);
	free((void *)(uintptr_t)routes);
}

static void free_neighbours(const struct gw_neighbours *neighbours)
{
	if (neighbours)
		gw_neighbours_clear((struct gw_neighbours *)(uintptr_t)neighbours);
	free((void *)(uintptr_t)neighbours);
}

/* Free tables, and what others do not have too. */
static void free_tables(const struct gw_tables *tables, const struct gw_tables *others)
{
	if (!tables)
		return;
	if (!others || tables->spd != others->spd)
		free_spd(tables->spd);
	if (!others || tables->routes != others->routes)
		free_routes(tables->routes);
	if (!others || tables->neighbours != others->neighbours)
		free_neighbours(tables->neighbours);
	free((void *)(uintptr_t)tables);
}

static const struct gw_spd *build_spd(const struct gw_table *policies)
{
	struct gw_spd *spd = calloc(1, sizeof(*spd));

	if (spd && gw_spd_build(spd, (const struct gw_control_policy *const *)policies->items,
				policies->count))
		return spd;
	free(spd);
	return NULL;
}

static const struct gw_routes *build_routes(const struct gw_table *routes)
{
	struct gw_routes *built = calloc(1, sizeof(*built));

	if (built && gw_routes_build(built, (const struct gw_control_route *const *)routes->items,
				     routes->count))
		return built;
	free(built);
	return NULL;
}

static const struct gw_neighbours *build_neighbours(const struct gw_table *neighbours)
{
	struct gw_neighbours *built = calloc(1, sizeof(*built));

	if (built && gw_neighbours_build(
			     built, (const struct gw_control_neighbour *const *)neighbours->items,
			     neighbours->count))
		return built;
	free(built);
	return NULL;
}

static const struct gw_tables *build(const struct gw_control *control, const struct gw_tables *old)
{
	struct gw_tables *tables = calloc(1, sizeof(*tables));

	if (!tables)
		return NULL;
	*tables = old ? *old : (struct gw_tables){0};
	if (!old || control->policies.is_changed)
		tables->spd = build_spd(&control->policies.staged);
	if (!old || control->routes.is_changed)
		tables->routes = build_routes(&control->routes.staged);
	if (!old || control->neighbours.is_changed)
		tables->neighbours = build_neighbours(&control->neighbours.staged);
	if (tables->spd && tables->routes && tables->neighbours)
		return tables;
	free_tables(tables, old);
	return NULL;
}

int gw_commit(struct gw_control *control, const void *message, union gw_any_reply *reply)
{
	struct gw_daemon *daemon = &control->daemon;
	const struct gw_tables *old = atomic_load(&daemon->tables);
	const struct gw_tables *tables = build(control, old);

	(void)message;
	if (!tables || !commit_one(&control->policies) || !commit_one(&control->routes) ||
	    !commit_one(&control->neighbours)) {
		free_tables(tables, old);
		return gw_refuse(reply, GW_E_MEMORY, "no memory");
	}
	atomic_store(&daemon->tables, tables);
	atomic_fetch_add(&daemon->generation, 1);
	gw_quiesce(daemon);
	free_tables(old, tables);
	/* Not before all of it is in force: what was not is built at the next COMMIT. */
	control->policies.is_changed = control->routes.is_changed = control->neighbours.is_changed =
		false;
	return GW_OK;
}

static void clear_staged(struct gw_staged *entries)
{
	gw_table_free_others(&entries->staged, &entries->committed);
	entries->staged.count = 0;
	entries->is_changed = true;
}

int gw_clear(struct gw_control *control, const void *message, union gw_any_reply *reply)
{
	(void)message;
	(void)reply;
	clear_staged(&control->policies);
	clear_staged(&control->routes);
	clear_staged(&control->neighbours);
	return GW_OK;
}

static void clear(struct gw_staged *entries)
{
	revert(entries);
	free(entries->staged.items);
	gw_table_clear(&entries->committed);
}

void gw_entries_clear(struct gw_control *control)
{
	free_tables(atomic_load(&control->daemon.tables), NULL);
	clear(&control->policies);
	clear(&control->routes);
	clear(&control->neighbours);
}
