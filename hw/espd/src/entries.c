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
	return GW_OK;
}

static int remove_entry(struct gw_staged *entries, const void *key, union gw_any_reply *reply)
{
	void *item = gw_table_take(&entries->staged, key);

	if (!item)
		return gw_refuse(reply, GW_E_NO_ENTRY, "no such entry");
	drop_staged(entries, item);
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

static void free_tables(struct gw_tables *tables)
{
	if (!tables)
		return;
	gw_spd_clear(&tables->spd);
	gw_routes_clear(&tables->routes);
	free(tables);
}

static struct gw_tables *build(const struct gw_control *control)
{
	const struct gw_table *policies = &control->policies.staged;
	const struct gw_table *routes = &control->routes.staged;
	const struct gw_table *neighbours = &control->neighbours.staged;
	struct gw_tables *tables = calloc(1, sizeof(*tables));

	if (tables &&
	    gw_spd_build(&tables->spd, (const struct gw_control_policy *const *)policies->items,
			 policies->count) &&
	    gw_routes_build(&tables->routes, (const struct gw_control_route *const *)routes->items,
			    routes->count,
			    (const struct gw_control_neighbour *const *)neighbours->items,
			    neighbours->count))
		return tables;
	free_tables(tables);
	return NULL;
}

int gw_commit(struct gw_control *control, const void *message, union gw_any_reply *reply)
{
	struct gw_daemon *daemon = &control->daemon;
	struct gw_tables *tables = build(control);
	const struct gw_tables *old;

	(void)message;
	if (!tables || !commit_one(&control->policies) || !commit_one(&control->routes) ||
	    !commit_one(&control->neighbours)) {
		free_tables(tables);
		return gw_refuse(reply, GW_E_MEMORY, "no memory");
	}
	old = atomic_exchange(&daemon->tables, tables);
	atomic_fetch_add(&daemon->generation, 1);
	gw_quiesce(daemon);
	free_tables((struct gw_tables *)(uintptr_t)old);
	return GW_OK;
}

static void clear_staged(struct gw_staged *entries)
{
	gw_table_free_others(&entries->staged, &entries->committed);
	entries->staged.count = 0;
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
	free_tables((struct gw_tables *)(uintptr_t)atomic_load(&control->daemon.tables));
	clear(&control->policies);
	clear(&control->routes);
	clear(&control->neighbours);
}
