/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "control.h"

#define MAX_INBOUND_BITS 24u
#define MAX_OUTBOUND_SAS (1u << 20)
#define MAX_TUNNELS      (1u << 20)
#define MAX_FRAMES       (1u << 20)
#define MIN_FRAMES       512u
#define MIN_FRAME_BYTES  2048u
#define MAX_FRAME_BYTES  (1u << 14)
#define MAX_QUEUES       GW_MAX_WORKERS
#define MAX_MTU          65535u
#define MAX_CPU          1023u

static bool is_family(uint8_t family)
{
	return family == 4 || family == 6;
}

static bool is_power_of_two(uint32_t value)
{
	return value && (value & (value - 1)) == 0;
}

static bool check_plain(const void *message)
{
	(void)message;
	return true;
}

static bool check_configure(const void *message)
{
	const struct gw_control_configure *configure = message;

	if (configure->workers == 0 || configure->workers > GW_MAX_WORKERS)
		return false;
	for (uint32_t i = 0; i < configure->workers; i++)
		if (configure->cpus[i] != GW_ANY_CPU && configure->cpus[i] > MAX_CPU)
			return false;
	return configure->busy_poll <= 1 && configure->crypto <= GW_CRYPTO_OPENSSL &&
	       configure->inbound_bits <= MAX_INBOUND_BITS &&
	       configure->outbound_sas <= MAX_OUTBOUND_SAS && configure->tunnels <= MAX_TUNNELS &&
	       configure->frames >= MIN_FRAMES && configure->frames <= MAX_FRAMES &&
	       configure->frame_bytes >= MIN_FRAME_BYTES &&
	       configure->frame_bytes <= MAX_FRAME_BYTES &&
	       is_power_of_two(configure->frame_bytes) && configure->batch_low > 0 &&
	       configure->batch_low <= configure->batch_high && configure->batch_high <= GW_BATCH;
}

/* --- devices */

static bool are_methods(const uint8_t methods[GW_MAX_METHODS])
{
	bool ended = false;

	for (int i = 0; i < GW_MAX_METHODS; i++) {
		if (methods[i] >= GW_IO_COUNT || (ended && methods[i] != GW_IO_UNSPECIFIED))
			return false;
		ended |= methods[i] == GW_IO_UNSPECIFIED;
	}
	return true;
}

static bool is_device(uint32_t device)
{
	return device > 0 && device <= GW_MAX_DEVICES;
}

/* As the kernel takes it (dev_valid_name), with its end; or none, for a device that stands for all. */
static bool is_link_name(const char name[GW_NAME_BYTES])
{
	const char *end = memchr(name, 0, GW_NAME_BYTES);

	if (end == name)
		return true;
	if (!end || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return false;
	for (; name < end; name++)
		if (*name <= ' ' || *name == '/' || *name == ':' || *name == '%' || *name == 0x7f)
			return false;
	return true;
}

static bool check_device(const void *message)
{
	const struct gw_control_device *device = message;

	return is_device(device->device) && is_link_name(device->name) &&
	       (device->flags & ~(uint32_t)GW_DEVICE_FLAGS) == 0 && device->mtu <= MAX_MTU &&
	       device->queues > 0 && device->queues <= MAX_QUEUES &&
	       are_methods(device->receive_methods) && are_methods(device->send_methods);
}

static bool check_device_name(const void *message)
{
	return is_device(((const struct gw_control_device_name *)message)->device);
}

/* --- SAs: gw_sa_add checks their parameters itself */

static bool check_sa(const void *message)
{
	const struct gw_control_sa *sa = message;

	return sa->params.cookie != 0 && sa->params.index == 0 && sa->note_bytes <= GW_NOTE_BYTES &&
	       sa->device <= GW_MAX_DEVICES &&
	       (sa->worker == GW_ANY_WORKER || sa->worker < GW_MAX_WORKERS) &&
	       sa->params.local_selectors <= GW_MAX_SELECTORS &&
	       sa->params.remote_selectors <= GW_MAX_SELECTORS - sa->params.local_selectors;
}

static bool check_tunnel(const void *message)
{
	const struct gw_control_tunnel *tunnel = message;

	return tunnel->tunnel > 0 && tunnel->count <= GW_MAX_TUNNEL_SAS;
}

/* --- tables */

static bool check_policy(const void *message)
{
	const struct gw_control_policy *policy = message;
	uint32_t count = (uint32_t)policy->local_selectors + policy->remote_selectors;

	if (policy->policy == 0 || policy->device > GW_MAX_DEVICES ||
	    policy->action == GW_POLICY_UNSPECIFIED || policy->action > GW_POLICY_DISCARD ||
	    policy->acquire > 1 || count > GW_MAX_SELECTORS ||
	    (policy->action == GW_POLICY_PROTECT) != (policy->tunnel != 0))
		return false;
	for (uint32_t i = 0; i < count; i++)
		if (!is_family(policy->selectors[i].family))
			return false;
	return true;
}

static bool check_policy_name(const void *message)
{
	return ((const struct gw_control_policy_name *)message)->policy != 0;
}

static bool check_route_name(const void *message)
{
	const struct gw_control_route *route = message;

	return is_family(route->family) && route->prefix_bits <= (route->family == 4 ? 32 : 128);
}

static bool check_route(const void *message)
{
	const struct gw_control_route *route = message;

	return check_route_name(route) && route->kind > GW_ROUTE_UNSPECIFIED &&
	       route->kind <= GW_ROUTE_UNREACHABLE && route->mtu <= MAX_MTU &&
	       (route->kind == GW_ROUTE_FORWARD ? is_device(route->device) : route->device == 0);
}

static bool check_neighbour(const void *message)
{
	const struct gw_control_neighbour *neighbour = message;

	return is_device(neighbour->device) && is_family(neighbour->family);
}

static bool check_worker(const void *message)
{
	uint16_t worker = ((const struct gw_control_worker_name *)message)->worker;

	return worker == GW_ANY_WORKER || worker < GW_MAX_WORKERS;
}

static const struct {
	size_t bytes;
	bool (*check)(const void *message);
} checks[GW_MESSAGE_COUNT] = {
	[GW_MESSAGE_HELLO] = {sizeof(struct gw_control_hello), check_plain},
	[GW_MESSAGE_CONFIGURE] = {sizeof(struct gw_control_configure), check_configure},
	[GW_MESSAGE_DEVICE_SET] = {sizeof(struct gw_control_device), check_device},
	[GW_MESSAGE_DEVICE_REMOVE] = {sizeof(struct gw_control_device_name), check_device_name},
	[GW_MESSAGE_DEVICE_READ] = {sizeof(struct gw_control_device_name), check_device_name},
	[GW_MESSAGE_SA_ADD] = {sizeof(struct gw_control_sa), check_sa},
	[GW_MESSAGE_SA_REMOVE] = {sizeof(struct gw_control_sa_name), check_plain},
	[GW_MESSAGE_SA_READ] = {sizeof(struct gw_control_sa_name), check_plain},
	[GW_MESSAGE_SA_LIST] = {sizeof(struct gw_control_sa_name), check_plain},
	[GW_MESSAGE_SA_RESERVE] = {sizeof(struct gw_control_sa_reserve), check_plain},
	[GW_MESSAGE_SA_MOVE] = {sizeof(struct gw_control_sa_move), check_plain},
	[GW_MESSAGE_SA_PATH_MTU] = {sizeof(struct gw_control_sa_path_mtu), check_plain},
	[GW_MESSAGE_TUNNEL_SET] = {sizeof(struct gw_control_tunnel), check_tunnel},
	[GW_MESSAGE_POLICY_SET] = {sizeof(struct gw_control_policy), check_policy},
	[GW_MESSAGE_POLICY_REMOVE] = {sizeof(struct gw_control_policy_name), check_policy_name},
	[GW_MESSAGE_ROUTE_SET] = {sizeof(struct gw_control_route), check_route},
	[GW_MESSAGE_ROUTE_REMOVE] = {sizeof(struct gw_control_route), check_route_name},
	[GW_MESSAGE_NEIGHBOUR_SET] = {sizeof(struct gw_control_neighbour), check_neighbour},
	[GW_MESSAGE_NEIGHBOUR_REMOVE] = {sizeof(struct gw_control_neighbour), check_neighbour},
	[GW_MESSAGE_COMMIT] = {sizeof(struct gw_control_plain), check_plain},
	[GW_MESSAGE_CLEAR] = {sizeof(struct gw_control_plain), check_plain},
	[GW_MESSAGE_COUNTERS_READ] = {sizeof(struct gw_control_worker_name), check_worker},
	[GW_MESSAGE_SHUT_DOWN] = {sizeof(struct gw_control_plain), check_plain},
};

int gw_check_message(const void *message, size_t bytes)
{
	const struct gw_control_header *header = message;

	if (bytes < sizeof(*header))
		return GW_E_SIZE;
	if (header->version != GW_CONTROL_VERSION)
		return GW_E_VERSION;
	if (header->type >= GW_MESSAGE_COUNT || !checks[header->type].check)
		return GW_E_TYPE;
	if (bytes != checks[header->type].bytes || header->bytes != bytes)
		return GW_E_SIZE;
	return checks[header->type].check(message) ? GW_OK : GW_E_INVALID;
}
