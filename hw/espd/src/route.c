/* SPDX-License-Identifier: Apache-2.0 */
#include "route.h"

#include <stdlib.h>
#include <string.h>

static int compare_numbers(const struct gw_number *a, const struct gw_number *b)
{
	if (a->high != b->high)
		return a->high < b->high ? -1 : 1;
	return a->low < b->low ? -1 : a->low > b->low;
}

static int compare_routes(const void *a, const void *b)
{
	const struct gw_route *left = a, *right = b;

	if (left->prefix_bits != right->prefix_bits)
		return left->prefix_bits > right->prefix_bits ? -1 : 1;
	return compare_numbers(&left->first, &right->first);
}

static int compare_neighbours(const void *a, const void *b)
{
	const struct gw_neighbour *left = a, *right = b;

	if (left->device != right->device)
		return left->device < right->device ? -1 : 1;
	if (left->family != right->family)
		return left->family < right->family ? -1 : 1;
	return compare_numbers(&left->address, &right->address);
}

static uint64_t low_bits(uint32_t bits)
{
	return bits >= 64 ? UINT64_MAX : (1ull << bits) - 1;
}

static void fill_route(struct gw_route *route, const struct gw_control_route *from)
{
	static const uint8_t none[16];
	uint32_t host_bits = (from->family == 4 ? 32u : 128u) - from->prefix_bits;
	struct gw_number address = gw_number_of(from->destination, from->family);
	struct gw_number mask = {
		.high = host_bits > 64 ? low_bits(host_bits - 64) : 0,
		.low = low_bits(host_bits),
	};

	*route = (struct gw_route){
		.first = {address.high & ~mask.high, address.low & ~mask.low},
		.last = {address.high | mask.high, address.low | mask.low},
		.device = from->device,
		.mtu = from->mtu,
		.family = from->family,
		.prefix_bits = from->prefix_bits,
		.kind = from->kind,
		.has_gateway = memcmp(from->gateway, none, sizeof(none)) != 0,
	};
	memcpy(route->gateway, from->gateway, sizeof(route->gateway));
}

bool gw_routes_build(struct gw_routes *tables, const struct gw_control_route *const *routes,
		     uint32_t route_count, const struct gw_control_neighbour *const *neighbours,
		     uint32_t neighbour_count)
{
	*tables = (struct gw_routes){
		.routes = calloc((size_t)route_count + 1, sizeof(*tables->routes)),
		.neighbours = calloc((size_t)neighbour_count + 1, sizeof(*tables->neighbours)),
	};
	if (!tables->routes || !tables->neighbours) {
		gw_routes_clear(tables);
		return false;
	}
	for (uint32_t i = 0; i < route_count; i++) {
		fill_route(&tables->routes[i], routes[i]);
		tables->has_local |= routes[i]->kind == GW_ROUTE_LOCAL;
	}
	for (uint32_t i = 0; i < neighbour_count; i++) {
		struct gw_neighbour *neighbour = &tables->neighbours[i];

		neighbour->address = gw_number_of(neighbours[i]->address, neighbours[i]->family);
		neighbour->device = neighbours[i]->device;
		neighbour->family = neighbours[i]->family;
		memcpy(neighbour->mac, neighbours[i]->mac, sizeof(neighbour->mac));
	}
	tables->route_count = route_count;
	tables->neighbour_count = neighbour_count;
	qsort(tables->routes, route_count, sizeof(*tables->routes), compare_routes);
	qsort(tables->neighbours, neighbour_count, sizeof(*tables->neighbours), compare_neighbours);
	return true;
}

void gw_routes_clear(struct gw_routes *tables)
{
	free(tables->routes);
	free(tables->neighbours);
	*tables = (struct gw_routes){0};
}

static const struct gw_route *find_route(const struct gw_routes *tables,
					 const struct gw_number *address, uint8_t family)
{
	for (uint32_t i = 0; i < tables->route_count; i++) {
		const struct gw_route *route = &tables->routes[i];

		if (route->family == family && compare_numbers(&route->first, address) <= 0 &&
		    compare_numbers(address, &route->last) <= 0)
			return route;
	}
	return NULL;
}

struct gw_next_hop gw_routes_find(const struct gw_routes *tables, const uint8_t *address,
				  uint8_t family)
{
	struct gw_neighbour wanted = {.address = gw_number_of(address, family), .family = family};
	const struct gw_route *route = find_route(tables, &wanted.address, family);
	const struct gw_neighbour *neighbour;
	struct gw_next_hop hop = {.kind = GW_ROUTE_UNSPECIFIED};

	if (!route)
		return hop;
	hop = (struct gw_next_hop){.device = route->device, .mtu = route->mtu, .kind = route->kind};
	if (route->kind != GW_ROUTE_FORWARD)
		return hop;
	wanted.device = route->device;
	if (route->has_gateway)
		wanted.address = gw_number_of(route->gateway, family);
	neighbour = bsearch(&wanted, tables->neighbours, tables->neighbour_count,
			    sizeof(*tables->neighbours), compare_neighbours);
	if (neighbour) {
		hop.is_resolved = true;
		memcpy(hop.mac, neighbour->mac, sizeof(hop.mac));
	}
	return hop;
}
