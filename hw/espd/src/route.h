/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Routes and neighbours, as the agent mirrors them: the longest prefix wins. Built and published
 * whole, like the SPD; threads keep what they found in a cache of their own.
 */
#ifndef GW_ROUTE_H
#define GW_ROUTE_H

#include "flow.h"
#include "gw_control.h"

struct gw_route {
	struct gw_number first; /* the prefix as a range, so that a lookup compares numbers */
	struct gw_number last;
	uint8_t gateway[16];
	uint32_t device;
	uint32_t mtu;
	uint8_t family;
	uint8_t prefix_bits;
	uint8_t kind; /* enum gw_route_kind */
	bool has_gateway;
};

struct gw_neighbour {
	struct gw_number address;
	uint32_t device;
	uint8_t family;
	uint8_t mac[6];
};

struct gw_routes {
	uint32_t route_count;
	uint32_t neighbour_count;
	bool has_local;                  /* some route is LOCAL: our addresses are known */
	struct gw_route *routes;         /* the longest prefix first */
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
 * gw_routes_build() - make the tables.
 * @tables: filled in; empty on failure.
 * @routes: as the agent set them, checked.
 * @route_count: how many.
 * @neighbours: the same.
 * @neighbour_count: how many.
 *
 * Return: false without memory.
 */
bool gw_routes_build(struct gw_routes *tables, const struct gw_control_route *const *routes,
		     uint32_t route_count, const struct gw_control_neighbour *const *neighbours,
		     uint32_t neighbour_count);

/**
 * gw_routes_clear() - free their memory.
 * @tables: built, or all zero.
 */
void gw_routes_clear(struct gw_routes *tables);

/**
 * gw_routes_find() - look up a destination.
 * @tables: built.
 * @address: as on the wire.
 * @family: 4 or 6.
 */
struct gw_next_hop gw_routes_find(const struct gw_routes *tables, const uint8_t *address,
				  uint8_t family);

#endif
