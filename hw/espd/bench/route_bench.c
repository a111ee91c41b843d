/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a lookup in the table of routes costs, beside a search through all of them.
 *
 *     route_bench [ROUTES]      (100000)
 *
 * Half of the routes are IPv4 and half are IPv6, of lengths as the Internet has them: mostly /24 and
 * /48. The addresses that are looked up are random ones of the prefixes, so that nothing but the
 * index stays in the cache. Prints a line of JSON: nanoseconds per lookup as the median of rounds,
 * with the lowest and the highest; milliseconds to build the table; bytes that it has.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "route.h"

#define ROUNDS  15u
#define LOOKUPS 200000u

static uint64_t state = 0x9e3779b97f4a7c15ull;

static uint64_t draw(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return left < right ? -1 : left > right;
}

static void fill(struct gw_control_route *route, uint8_t family)
{
	static const uint8_t lengths4[] = {24, 24, 24, 24, 24, 22, 23, 20, 19, 16};
	static const uint8_t lengths6[] = {48, 48, 48, 48, 44, 40, 36, 32, 32, 64};
	uint64_t low = draw(), high = draw();

	*route = (struct gw_control_route){
		.family = family,
		.prefix_bits = family == 4 ? lengths4[draw() % 10] : lengths6[draw() % 10],
		.kind = GW_ROUTE_FORWARD,
		.device = 1,
	};
	memcpy(route->destination, &high, 8);
	memcpy(route->destination + 8, &low, 8);
	if (family == 4) {
		memset(route->destination + 4, 0, 12);
	} else {
		route->destination[0] = 0x20 | (route->destination[0] & 0x0f);
	}
}

static void measure(const struct gw_routes *tables, const struct gw_control_route *routes,
		    uint32_t count, uint8_t family, const char *name)
{
	static uint8_t addresses[LOOKUPS][16];
	double ns[ROUNDS];
	uint64_t found = 0;

	for (uint32_t i = 0; i < LOOKUPS; i++) {
		const struct gw_control_route *route;

		do
			route = &routes[draw() % count];
		while (route->family != family);
		memcpy(addresses[i], route->destination, 16);
		addresses[i][family == 4 ? 3 : 15] ^= (uint8_t)draw();
	}
	for (uint32_t round = 0; round < ROUNDS; round++) {
		double begun = seconds();

		for (uint32_t i = 0; i < LOOKUPS; i++)
			found += gw_routes_match(tables, addresses[i], family) != NULL;
		ns[round] = (seconds() - begun) * 1e9 / LOOKUPS;
	}
	qsort(ns, ROUNDS, sizeof(ns[0]), compare);
	printf("\"%s\": {\"ns\": %.1f, \"lowest\": %.1f, \"highest\": %.1f, \"matched\": %.3f}, ",
	       name, ns[ROUNDS / 2], ns[0], ns[ROUNDS - 1], (double)found / ROUNDS / LOOKUPS);
}

int main(int argc, char **argv)
{
	uint32_t count = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 100000;
	struct gw_control_route *routes = calloc(count, sizeof(*routes));
	const struct gw_control_route **list = calloc(count, sizeof(*list));
	struct gw_routes tables;
	double begun, built;
	size_t bytes;

	if (count < 2 || !routes || !list)
		return 1;
	for (uint32_t i = 0; i < count; i++) {
		fill(&routes[i], i % 2 ? 6 : 4);
		list[i] = &routes[i];
	}
	begun = seconds();
	if (!gw_routes_build(&tables, list, count))
		return 1;
	built = seconds() - begun;
	printf("{\"routes\": %u, ", count);
	measure(&tables, routes, count, 4, "ipv4");
	measure(&tables, routes, count, 6, "ipv6");
	/* As it is allocated: room for two ranges to a prefix, and the index of each family. */
	bytes = (size_t)count * sizeof(*tables.routes) +
		(size_t)count * (2 * 4 + 2 * 4 + 2 * 16) / 2 + (size_t)count * 4 +
		2 * (GW_ROUTE_INDEX + 1) * sizeof(uint32_t);
	printf("\"built_ms\": %.1f, \"bytes\": %zu}\n", built * 1e3, bytes);
	gw_routes_clear(&tables);
	free(list);
	free(routes);
	return 0;
}
