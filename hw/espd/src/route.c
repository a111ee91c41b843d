/* SPDX-License-Identifier: Apache-2.0 */
#include "route.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"

#define MAX_PREFIXES_DEEP 129u /* /0 to /128, each within the one before */

static int compare_numbers(const struct gw_number *a, const struct gw_number *b)
{
	if (a->high != b->high)
		return a->high < b->high ? -1 : 1;
	return a->low < b->low ? -1 : a->low > b->low;
}

static uint64_t low_bits(uint32_t bits)
{
	return bits >= 64 ? UINT64_MAX : (1ull << bits) - 1;
}

/* --- ranges */

/* A prefix, as the addresses that it is of. */
struct prefix {
	struct gw_number first;
	struct gw_number last;
	uint32_t route;
};

/* From the lowest address on; of those that begin together, the shortest first: it is around the others. */
static int compare_prefixes(const void *a, const void *b)
{
	const struct prefix *left = a, *right = b;
	int order = compare_numbers(&left->first, &right->first);

	if (order == 0)
		order = compare_numbers(&right->last, &left->last);
	return order ? order : (left->route > right->route) - (left->route < right->route);
}

static struct prefix prefix_of(const struct gw_control_route *route, uint32_t number)
{
	uint32_t host_bits = (route->family == 4 ? 32u : 128u) - route->prefix_bits;
	struct gw_number address = gw_number_of(route->destination, route->family);
	struct gw_number mask = {
		.high = host_bits > 64 ? low_bits(host_bits - 64) : 0,
		.low = low_bits(host_bits),
	};

	return (struct prefix){
		.first = {address.high & ~mask.high, address.low & ~mask.low},
		.last = {address.high | mask.high, address.low | mask.low},
		.route = number,
	};
}

/* Have a range begin. The same address again: what was said of it was of no address. */
static void begin_range(struct gw_ranges *ranges, struct gw_number start, uint32_t route)
{
	uint32_t at = ranges->count;

	if (at && (ranges->starts ? ranges->starts[at - 1] == (uint32_t)start.low
				  : !compare_numbers(&ranges->wide_starts[at - 1], &start)))
		at--;
	/* Neighbours that lead to one route are one range. */
	ranges->count = at;
	if (at && ranges->routes[at - 1] == route)
		return;
	if (ranges->starts)
		ranges->starts[at] = (uint32_t)start.low;
	else
		ranges->wide_starts[at] = start;
	ranges->routes[at] = route;
	ranges->count = at + 1;
}

/* Have what is around a prefix go on behind it, unless it ends with the last address. */
static void go_on_behind(struct gw_ranges *ranges, const struct prefix *prefix, uint32_t route)
{
	struct gw_number next = {prefix->last.high, prefix->last.low + 1};

	if (next.low == 0)
		next.high++;
	if (ranges->starts ? next.low <= UINT32_MAX : next.high || next.low)
		begin_range(ranges, next, route);
}

static bool is_same(const struct prefix *a, const struct prefix *b)
{
	return compare_numbers(&a->first, &b->first) == 0 &&
	       compare_numbers(&a->last, &b->last) == 0;
}

/* Cut the addresses into ranges: in order, with the prefixes around the place on a stack. */
static void cut(struct gw_ranges *ranges, const struct prefix *prefixes, uint32_t count)
{
	const struct prefix *around[MAX_PREFIXES_DEEP];
	uint32_t depth = 0;

	begin_range(ranges, (struct gw_number){0, 0}, GW_NO_ROUTE);
	for (uint32_t i = 0; i <= count; i++) {
		while (depth && (i == count || compare_numbers(&around[depth - 1]->last,
							       &prefixes[i].first) < 0)) {
			const struct prefix *ended = around[--depth];

			go_on_behind(ranges, ended, depth ? around[depth - 1]->route : GW_NO_ROUTE);
		}
		if (i == count)
			break;
		if (depth && is_same(around[depth - 1], &prefixes[i]))
			continue; /* written with other bits behind the prefix: the first counts */
		around[depth++] = &prefixes[i];
		begin_range(ranges, prefixes[i].first, prefixes[i].route);
	}
}

static uint32_t first_bits_of(const struct gw_ranges *ranges, uint32_t range)
{
	return ranges->starts ? ranges->starts[range] >> 16
			      : (uint32_t)(ranges->wide_starts[range].high >> 48);
}

static bool is_lowest(const struct gw_ranges *ranges, uint32_t range)
{
	return ranges->starts ? (ranges->starts[range] & 0xffff) == 0
			      : ranges->wide_starts[range].high << 16 == 0 &&
					ranges->wide_starts[range].low == 0;
}

static void fill_index(struct gw_ranges *ranges)
{
	uint32_t range = 0;

	for (uint32_t bits = 0; bits < GW_ROUTE_INDEX; bits++) {
		while (range + 1 < ranges->count &&
		       (first_bits_of(ranges, range + 1) < bits ||
			(first_bits_of(ranges, range + 1) == bits && is_lowest(ranges, range + 1))))
			range++;
		ranges->index[bits] = range;
	}
	ranges->index[GW_ROUTE_INDEX] = ranges->count - 1;
}

static bool build_ranges(struct gw_ranges *ranges, struct prefix *prefixes, uint32_t count,
			 uint8_t family)
{
	size_t room = 2 * (size_t)count + 2;

	if (count == 0)
		return true;
	ranges->routes = calloc(room, sizeof(*ranges->routes));
	ranges->index = calloc(GW_ROUTE_INDEX + 1, sizeof(*ranges->index));
	if (family == 4)
		ranges->starts = calloc(room, sizeof(*ranges->starts));
	else
		ranges->wide_starts = calloc(room, sizeof(*ranges->wide_starts));
	if (!ranges->routes || !ranges->index || (!ranges->starts && !ranges->wide_starts))
		return false;
	qsort(prefixes, count, sizeof(*prefixes), compare_prefixes);
	cut(ranges, prefixes, count);
	fill_index(ranges);
	return true;
}

static void clear_ranges(struct gw_ranges *ranges)
{
	free(ranges->starts);
	free(ranges->wide_starts);
	free(ranges->routes);
	free(ranges->index);
}

/* --- routes */

static struct gw_route route_of(const struct gw_control_route *from)
{
	static const uint8_t none[16];
	struct gw_route route = {
		.device = from->device,
		.mtu = from->mtu,
		.family = from->family,
		.prefix_bits = from->prefix_bits,
		.kind = from->kind,
		.has_gateway = memcmp(from->gateway, none, sizeof(none)) != 0,
	};

	memcpy(route.gateway, from->gateway, sizeof(route.gateway));
	return route;
}

static bool build_family(struct gw_routes *tables, const struct gw_control_route *const *routes,
			 uint32_t count, uint8_t family)
{
	struct prefix *prefixes = calloc((size_t)count + 1, sizeof(*prefixes));
	uint32_t found = 0;
	bool is_built;

	if (!prefixes)
		return false;
	for (uint32_t i = 0; i < count; i++)
		if (routes[i]->family == family)
			prefixes[found++] = prefix_of(routes[i], i);
	is_built = build_ranges(&tables->ranges[family == 6], prefixes, found, family);
	free(prefixes);
	return is_built;
}

bool gw_routes_build(struct gw_routes *tables, const struct gw_control_route *const *routes,
		     uint32_t count)
{
	*tables = (struct gw_routes){
		.count = count,
		.routes = calloc((size_t)count + 1, sizeof(*tables->routes)),
	};
	if (!tables->routes || !build_family(tables, routes, count, 4) ||
	    !build_family(tables, routes, count, 6)) {
		gw_routes_clear(tables);
		return false;
	}
	for (uint32_t i = 0; i < count; i++) {
		tables->routes[i] = route_of(routes[i]);
		tables->has_local |= routes[i]->kind == GW_ROUTE_LOCAL;
	}
	return true;
}

void gw_routes_clear(struct gw_routes *tables)
{
	clear_ranges(&tables->ranges[0]);
	clear_ranges(&tables->ranges[1]);
	free(tables->routes);
	*tables = (struct gw_routes){0};
}

static uint32_t find4(const struct gw_ranges *ranges, uint32_t address)
{
	uint32_t low = ranges->index[address >> 16], high = ranges->index[(address >> 16) + 1];

	while (low < high) {
		uint32_t middle = high - (high - low) / 2;

		if (ranges->starts[middle] <= address)
			low = middle;
		else
			high = middle - 1;
	}
	return ranges->routes[low];
}

static uint32_t find6(const struct gw_ranges *ranges, const struct gw_number *address)
{
	uint32_t bits = (uint32_t)(address->high >> 48);
	uint32_t low = ranges->index[bits], high = ranges->index[bits + 1];

	while (low < high) {
		uint32_t middle = high - (high - low) / 2;

		if (compare_numbers(&ranges->wide_starts[middle], address) <= 0)
			low = middle;
		else
			high = middle - 1;
	}
	return ranges->routes[low];
}

const struct gw_route *gw_routes_match(const struct gw_routes *tables, const uint8_t *address,
				       uint8_t family)
{
	const struct gw_ranges *ranges = &tables->ranges[family == 6];
	struct gw_number number;
	uint32_t found;

	if (ranges->count == 0)
		return NULL;
	if (family == 4) {
		found = find4(ranges, gw_load32(address));
	} else {
		number = gw_number_of(address, family);
		found = find6(ranges, &number);
	}
	return found == GW_NO_ROUTE ? NULL : &tables->routes[found];
}

/* --- neighbours */

static int compare_neighbours(const void *a, const void *b)
{
	const struct gw_neighbour *left = a, *right = b;

	if (left->device != right->device)
		return left->device < right->device ? -1 : 1;
	if (left->family != right->family)
		return left->family < right->family ? -1 : 1;
	return compare_numbers(&left->address, &right->address);
}

bool gw_neighbours_build(struct gw_neighbours *tables,
			 const struct gw_control_neighbour *const *neighbours, uint32_t count)
{
	*tables = (struct gw_neighbours){
		.neighbours = calloc((size_t)count + 1, sizeof(*tables->neighbours)),
	};
	if (!tables->neighbours)
		return false;
	for (uint32_t i = 0; i < count; i++) {
		struct gw_neighbour *neighbour = &tables->neighbours[i];

		neighbour->address = gw_number_of(neighbours[i]->address, neighbours[i]->family);
		neighbour->device = neighbours[i]->device;
		neighbour->family = neighbours[i]->family;
		memcpy(neighbour->mac, neighbours[i]->mac, sizeof(neighbour->mac));
	}
	tables->count = count;
	qsort(tables->neighbours, count, sizeof(*tables->neighbours), compare_neighbours);
	return true;
}

void gw_neighbours_clear(struct gw_neighbours *tables)
{
	free(tables->neighbours);
	*tables = (struct gw_neighbours){0};
}

/* --- both */

struct gw_next_hop gw_find_hop(const struct gw_routes *routes,
			       const struct gw_neighbours *neighbours, const uint8_t *address,
			       uint8_t family)
{
	const struct gw_route *route = gw_routes_match(routes, address, family);
	struct gw_next_hop hop = {.kind = GW_ROUTE_UNSPECIFIED};
	struct gw_neighbour wanted = {.family = family};
	const struct gw_neighbour *neighbour;

	if (!route)
		return hop;
	hop = (struct gw_next_hop){.device = route->device, .mtu = route->mtu, .kind = route->kind};
	if (route->kind != GW_ROUTE_FORWARD)
		return hop;
	wanted.device = route->device;
	wanted.address = gw_number_of(route->has_gateway ? route->gateway : address, family);
	neighbour = bsearch(&wanted, neighbours->neighbours, neighbours->count,
			    sizeof(*neighbours->neighbours), compare_neighbours);
	if (neighbour) {
		hop.is_resolved = true;
		memcpy(hop.mac, neighbour->mac, sizeof(hop.mac));
	}
	return hop;
}
