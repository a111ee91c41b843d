/* SPDX-License-Identifier: Apache-2.0 */
/* What threads look packets up in: the order of the SPD, the longest prefix, rings, sorted records. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "ring.h"
#include "route.h"
#include "spd.h"
#include "table.h"
#include "tap.h"

/* --- the SPD */

static struct gw_control_policy policy(uint32_t name, uint64_t order, uint8_t action,
				       const char *remote_from, const char *remote_to)
{
	struct gw_control_policy policy = {
		.policy = name,
		.order = order,
		.action = action,
		.local_selectors = 1,
		.remote_selectors = 1,
		.selectors = {{.family = 4, .end_port = UINT16_MAX},
			      {.family = 4, .end_port = UINT16_MAX}},
	};

	inet_pton(AF_INET, "10.1.0.0", policy.selectors[0].start);
	inet_pton(AF_INET, "10.1.255.255", policy.selectors[0].end);
	inet_pton(AF_INET, remote_from, policy.selectors[1].start);
	inet_pton(AF_INET, remote_to, policy.selectors[1].end);
	return policy;
}

static struct gw_flow flow(uint32_t source, uint32_t destination)
{
	return (struct gw_flow){
		.source = {.low = source},
		.destination = {.low = destination},
		.source_port = 1,
		.destination_port = 2,
		.protocol = 17,
		.family = 4,
		.is_first_fragment = true,
	};
}

static uint32_t name_of(const struct gw_spd_entry *entry)
{
	return entry ? entry->policy : 0;
}

static void test_spd(void)
{
	struct gw_control_policy policies[] = {
		policy(5, 20, GW_POLICY_DISCARD, "10.2.0.0", "10.2.255.255"),
		policy(4, 20, GW_POLICY_BYPASS, "10.2.0.0", "10.2.0.255"),
		policy(3, 10, GW_POLICY_PROTECT, "10.2.0.7", "10.2.0.7"),
		policy(2, 1, GW_POLICY_BYPASS, "0.0.0.0", "255.255.255.255"),
	};
	const struct gw_control_policy *list[4];
	struct gw_flow to[] = {flow(0x0a010001, 0x0a020007), flow(0x0a010001, 0x0a020008),
			       flow(0x0a010001, 0x0a020100), flow(0x0a010001, 0x0a030001),
			       flow(0x0a090001, 0x0a020007)};
	static const uint32_t outbound[] = {3, 4, 5, 0, 0};
	struct gw_spd spd;

	policies[3].device = 9; /* a tunnel interface's */
	for (int i = 0; i < 4; i++)
		list[i] = &policies[i];
	tap_check(gw_spd_build(&spd, list, 4), "an SPD is built");
	for (int i = 0; i < 5; i++) {
		struct gw_flow back = gw_flow_reversed(&to[i]);

		tap_check(name_of(gw_spd_outbound(&spd, &to[i], 1)) == outbound[i],
			  "the first match in the order of entries");
		tap_check(name_of(gw_spd_inbound(&spd, &back, 1)) == outbound[i],
			  "and the same for the answer");
		tap_check(name_of(gw_spd_outbound(&spd, &to[i], 9)) == (i < 4 ? 2u : 0u),
			  "a device with entries of its own has no others");
	}
	gw_spd_clear(&spd);
	tap_check(gw_spd_build(&spd, NULL, 0) && !gw_spd_outbound(&spd, &to[0], 1),
		  "an empty SPD has nothing");
	gw_spd_clear(&spd);
}

/* --- routes */

static struct gw_control_route route(const char *prefix, uint8_t bits, uint8_t kind,
				     uint32_t device, const char *gateway)
{
	struct gw_control_route route = {
		.family = strchr(prefix, ':') ? 6 : 4,
		.prefix_bits = bits,
		.kind = kind,
		.device = device,
	};
	int family = route.family == 4 ? AF_INET : AF_INET6;

	inet_pton(family, prefix, route.destination);
	if (gateway)
		inet_pton(family, gateway, route.gateway);
	return route;
}

static void test_routes(void)
{
	static const struct gw_control_neighbour known = {
		.address = {192, 0, 2, 9},
		.device = 1,
		.family = 4,
		.mac = {2, 0, 0, 0, 0, 9},
	};
	const struct gw_control_neighbour *neighbours[] = {&known};
	struct gw_control_route routes[] = {
		route("0.0.0.0", 0, GW_ROUTE_FORWARD, 1, "192.0.2.9"),
		route("10.0.0.0", 8, GW_ROUTE_UNREACHABLE, 0, NULL),
		route("10.1.0.0", 16, GW_ROUTE_FORWARD, 2, NULL),
		route("10.1.0.1", 32, GW_ROUTE_LOCAL, 0, NULL),
		route("2001:db8::", 65, GW_ROUTE_FORWARD, 3, NULL),
		route("::", 0, GW_ROUTE_FORWARD, 4, NULL),
	};
	const struct gw_control_route *list[6];
	static const struct row {
		const char *to;
		uint8_t kind;
		uint32_t device;
		bool resolved;
	} rows[] = {
		{"198.51.100.1", GW_ROUTE_FORWARD, 1, true},
		{"192.0.2.9", GW_ROUTE_FORWARD, 1, true},
		{"10.9.0.1", GW_ROUTE_UNREACHABLE, 0, false},
		{"10.1.9.9", GW_ROUTE_FORWARD, 2, false},
		{"10.1.0.1", GW_ROUTE_LOCAL, 0, false},
		{"2001:db8::7fff:ffff:ffff:ffff", GW_ROUTE_FORWARD, 3, false},
		{"2001:db8::8000:0:0:0", GW_ROUTE_FORWARD, 4, false},
	};
	struct gw_neighbours around;
	struct gw_routes tables;

	for (int i = 0; i < 6; i++)
		list[i] = &routes[i];
	tap_check(gw_routes_build(&tables, list, 6) && tables.has_local &&
			  gw_neighbours_build(&around, neighbours, 1),
		  "routes are built");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t family = strchr(rows[i].to, ':') ? 6 : 4;
		uint8_t address[16];
		struct gw_next_hop hop;

		inet_pton(family == 4 ? AF_INET : AF_INET6, rows[i].to, address);
		hop = gw_find_hop(&tables, &around, address, family);
		tap_check(hop.kind == rows[i].kind && hop.device == rows[i].device &&
				  hop.is_resolved == rows[i].resolved,
			  rows[i].to);
	}
	gw_routes_clear(&tables);
	gw_neighbours_clear(&around);
}

/* The end of the addresses, one prefix at both ends of another, and one that is written in two ways. */
static void test_edges_of_routes(void)
{
	const struct gw_control_route routes[] = {
		route("255.255.255.255", 32, GW_ROUTE_FORWARD, 1, NULL),
		route("255.255.0.0", 16, GW_ROUTE_FORWARD, 2, NULL),
		route("255.255.0.0", 24, GW_ROUTE_FORWARD, 3, NULL),
		route("0.0.0.0", 1, GW_ROUTE_FORWARD, 4, NULL),
		route("0.0.0.1", 32, GW_ROUTE_FORWARD, 5, NULL),
		route("10.7.0.0", 16, GW_ROUTE_FORWARD, 6, NULL),
		route("10.7.0.9", 16, GW_ROUTE_FORWARD, 7, NULL),
		route("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", 127, GW_ROUTE_FORWARD, 8, NULL),
		route("2001:db8:0:1::", 64, GW_ROUTE_FORWARD, 9, NULL),
		route("2001:db8:0:1:8000::", 65, GW_ROUTE_FORWARD, 10, NULL),
	};
	static const struct {
		const char *to;
		uint32_t device;
	} rows[] = {
		{"255.255.255.255", 1},
		{"255.255.255.254", 2},
		{"255.255.0.0", 3},
		{"255.255.1.0", 2},
		{"255.254.255.255", 0},
		{"0.0.0.0", 4},
		{"0.0.0.1", 5},
		{"0.0.0.2", 4},
		{"127.255.255.255", 4},
		{"128.0.0.0", 0},
		{"10.7.1.1", 6},
		{"::", 0},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 8},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffd", 0},
		{"2001:db8:0:1:7fff:ffff:ffff:ffff", 9},
		{"2001:db8:0:1:8000::", 10},
		{"2001:db8:0:2::", 0},
	};
	const struct gw_control_route *list[sizeof(routes) / sizeof(routes[0])];
	const uint32_t count = sizeof(routes) / sizeof(routes[0]);
	struct gw_routes tables;

	for (uint32_t i = 0; i < count; i++)
		list[i] = &routes[i];
	tap_check(gw_routes_build(&tables, list, count), "routes at edges are built");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t family = strchr(rows[i].to, ':') ? 6 : 4;
		const struct gw_route *found;
		uint8_t address[16];

		inet_pton(family == 4 ? AF_INET : AF_INET6, rows[i].to, address);
		found = gw_routes_match(&tables, address, family);
		tap_check((found ? found->device : 0) == rows[i].device, rows[i].to);
	}
	gw_routes_clear(&tables);
	tap_check(gw_routes_build(&tables, NULL, 0) &&
			  !gw_routes_match(&tables, (const uint8_t[16]){10}, 4) &&
			  !gw_routes_match(&tables, (const uint8_t[16]){0x20}, 6),
		  "no routes lead nowhere");
	gw_routes_clear(&tables);
}

/* --- a full table */

#define FULL    120000u
#define LOOKUPS 2000u

/* xorshift64: the same table in every run. */
static uint64_t draw(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* A prefix near others: the first bits are drawn from few, the length from where many are. */
static struct gw_control_route draw_route(uint64_t *state, uint32_t number)
{
	bool is_ipv4 = number % 2 == 0;
	struct gw_control_route route = {
		.family = is_ipv4 ? 4 : 6,
		.prefix_bits = (uint8_t)(draw(state) % (is_ipv4 ? 33 : 129)),
		.kind = GW_ROUTE_FORWARD,
		.device = 1,
		.mtu = number,
	};

	for (uint32_t i = 0; i < (is_ipv4 ? 4u : 16u); i++)
		route.destination[i] = (uint8_t)(draw(state) % (i < 2 ? 8 : 256));
	return route;
}

static bool is_in(const uint8_t *address, const struct gw_control_route *route)
{
	for (uint32_t bit = 0; bit < route->prefix_bits; bit++)
		if ((address[bit / 8] ^ route->destination[bit / 8]) >> (7 - bit % 8) & 1)
			return false;
	return true;
}

static const struct gw_control_route *find_slowly(const struct gw_control_route *routes,
						  const uint8_t *address, uint8_t family)
{
	const struct gw_control_route *best = NULL;

	for (uint32_t i = 0; i < FULL; i++)
		if (routes[i].family == family &&
		    (!best || routes[i].prefix_bits > best->prefix_bits) &&
		    is_in(address, &routes[i]))
			best = &routes[i];
	return best;
}

static void test_full_table(void)
{
	struct gw_control_route *routes = calloc(FULL, sizeof(*routes));
	const struct gw_control_route **list = calloc(FULL, sizeof(*list));
	uint64_t state = 0x9e3779b97f4a7c15ull;
	uint32_t wrong = 0, matched = 0;
	struct gw_routes tables;

	for (uint32_t i = 0; i < FULL; i++) {
		routes[i] = draw_route(&state, i);
		list[i] = &routes[i];
	}
	tap_check(gw_routes_build(&tables, list, FULL), "a full table is built");
	tap_check(tables.ranges[0].count <= FULL + 1 && tables.ranges[1].count <= FULL + 1,
		  "it has at most two ranges to a prefix, and one more");
	for (uint32_t i = 0; i < LOOKUPS; i++) {
		/* The last address of a prefix, or the one behind it: where ranges meet. */
		const struct gw_control_route *from = &routes[draw(&state) % FULL];
		uint32_t bytes = from->family == 4 ? 4 : 16;
		const struct gw_control_route *want;
		const struct gw_route *found;
		uint8_t address[16];

		memcpy(address, from->destination, sizeof(address));
		for (uint32_t bit = from->prefix_bits; bit < bytes * 8; bit++)
			address[bit / 8] |= (uint8_t)(1 << (7 - bit % 8));
		for (uint32_t at = bytes; i % 2 && at > 0 && ++address[at - 1] == 0; at--)
			;
		want = find_slowly(routes, address, from->family);
		found = gw_routes_match(&tables, address, from->family);
		/* Of two that are one prefix the first counts, for the slow way too. */
		wrong += (found ? found->mtu : UINT32_MAX) != (want ? want->mtu : UINT32_MAX);
		matched += want != NULL;
	}
	tap_check(wrong == 0, "the longest prefix is found, as by looking at all of them");
	tap_check(matched > LOOKUPS / 2, "most lookups find one");
	gw_routes_clear(&tables);
	free(list);
	free(routes);
}

/* --- rings and records */

static void test_ring(void)
{
	struct gw_ring ring;
	uint32_t put = 0, taken = 0;
	bool in_order = true;

	tap_check(gw_ring_init(&ring, 4, 64), "a ring is made");
	atomic_store(&ring.head, UINT32_MAX - 1); /* near the end of its count */
	atomic_store(&ring.tail, UINT32_MAX - 1);
	for (int round = 0; round < 5; round++) {
		uint32_t *slot;

		while ((slot = gw_ring_writable(&ring)) != NULL) {
			*slot = put++;
			gw_ring_put(&ring);
		}
		in_order &= gw_ring_used(&ring) == 4;
		for (int i = 0; i < 3; i++) {
			slot = gw_ring_readable(&ring);
			in_order &= slot && *slot == taken++;
			gw_ring_take(&ring);
		}
	}
	tap_check(in_order && put == taken + 1, "what is put is taken, in order, none too many");
	gw_ring_clear(&ring);
}

static int compare_numbers(const void *a, const void *b)
{
	return *(const int *)a < *(const int *)b ? -1 : *(const int *)a > *(const int *)b;
}

static int *number(int value)
{
	int *made = malloc(sizeof(*made));

	*made = value;
	return made;
}

static void test_table(void)
{
	static const int values[] = {5, 1, 9, 3, 7};
	struct gw_table table = {.compare = compare_numbers}, copy = {.compare = compare_numbers};
	int key = 3, *again = number(3);
	void *replaced;
	bool sorted = true;

	for (int i = 0; i < 5; i++)
		gw_table_put(&table, number(values[i]), &replaced);
	for (uint32_t i = 1; i < table.count; i++)
		sorted &= compare_numbers(table.items[i - 1], table.items[i]) < 0;
	tap_check(sorted && table.count == 5, "records are sorted");
	tap_check(gw_table_after(&table, &key) == 2, "those behind a key are found");
	gw_table_copy(&copy, &table);
	gw_table_put(&table, again, &replaced);
	tap_check(replaced && replaced != again && table.count == 5, "an equal key replaces");
	key = 9;
	gw_table_take(&copy, &key);
	free(gw_table_take(&table, &key));
	tap_check(!gw_table_find(&table, &key) && table.count == 4, "what is taken is gone");
	gw_table_free_others(&copy, &table); /* frees the 3 that was replaced, and nothing else */
	free(copy.items);
	gw_table_clear(&table);
}

int main(void)
{
	test_spd();
	test_routes();
	test_edges_of_routes();
	test_full_table();
	test_ring();
	test_table();
	return tap_end();
}
