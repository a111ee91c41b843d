/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Routes and neighbours, as the agent mirrors them: the longest prefix wins. Both are built and
 * published whole, like the SPD; threads keep what they found in a cache of their own.
 *
 * Prefixes nest or are apart, so they cut the addresses into at most 2n+1 ranges in each of which
 * one of them, or none, is the longest. A lookup is a binary search for the range, in the part of
 * them that an index by the first 16 bits names.
 */
#ifndef GW_ROUTE_H
#define GW_ROUTE_H

#include "flow.h"
#include "gw_control.h"

#define GW_ROUTE_INDEX 65536u

/* Where a route leads, whatever its prefix. */
struct gw_route {
	uint8_t gateway[16];
	uint32_t device;
	uint32_t mtu;
	uint8_t family;
	uint8_t prefix_bits;
	uint8_t kind; /* enum gw_route_kind */
	bool has_gateway;
};

/* The ranges of one family, from the lowest address on. */
struct gw_ranges {
	uint32_t count;                /* 0: no routes */
	uint32_t *starts;              /* IPv4: the first address of each */
	struct gw_number *wide_starts; /* IPv6 */
	uint32_t *routes;              /* number of the route of each, or GW_NO_ROUTE */
	/* [first 16 bits]: the range of the lowest address with them, and one more for the end. */
	uint32_t *index;
};

#define GW_NO_ROUTE UINT32_MAX

struct gw_routes {
	bool has_local; /* some route is LOCAL: our addresses are known */
	uint32_t count;
	struct gw_route *routes;
	struct gw_ranges ranges[2]; /* IPv4, IPv6 */
};

struct gw_neighbour {
	struct gw_number address;
	uint32_t device;
	uint8_t family;
	uint8_t mac[6];
};

struct gw_neighbours {
	uint32_t count;
	struct gw_neighbour *neighbours; /* sorted */
};

/* Where a packet goes. */
struct gw_next_hop {
	uint32_t device; /* of FORWARD */
	uint32_t mtu;    /* 0: the device's */
	uint8_t kind;    /* enum gw_route_kind; UNSPECIFIED: no route */
	bool is_resolved;
	uint8_t mac[6];
};

/**
 * gw_routes_build() - make the table of routes.
 * @tables: filled in; empty on failure.
 * @routes: as the agent set them, checked.
 * @count: how many.
 *
 * Return: false without memory.
 */
bool gw_routes_build(struct gw_routes *tables, const struct gw_control_route *const *routes,
		     uint32_t count);

/**
 * gw_routes_clear() - free their memory.
 * @tables: built, or all zero.
 */
void gw_routes_clear(struct gw_routes *tables);

/**
 * gw_routes_match() - find the route with the longest prefix.
 * @tables: built.
 * @address: as on the wire.
 * @family: 4 or 6.
 *
 * Return: the route, or NULL.
 */
const struct gw_route *gw_routes_match(const struct gw_routes *tables, const uint8_t *address,
				       uint8_t family);

/**
 * gw_neighbours_build() - make the table of neighbours.
 * @tables: filled in; empty on failure.
 * @neighbours: as the agent set them, checked.
 * @count: how many.
 *
 * Return: false without memory.
 */
bool gw_neighbours_build(struct gw_neighbours *tables,
			 const struct gw_control_neighbour *const *neighbours, uint32_t count);

/**
 * gw_neighbours_clear() - free their memory.
 * @tables: built, or all zero.
 */
void gw_neighbours_clear(struct gw_neighbours *tables);

/**
 * gw_find_hop() - look up where packets to a destination go.
 * @routes: built.
 * @neighbours: built.
 * @address: as on the wire.
 * @family: 4 or 6.
 */
struct gw_next_hop gw_find_hop(const struct gw_routes *routes,
			       const struct gw_neighbours *neighbours, const uint8_t *address,
			       uint8_t family);

#endif
