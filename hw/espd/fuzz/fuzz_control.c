/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer's target for what comes over the control socket. An input is a list of messages, each a
 * byte that chooses the request and then its struct, or as much of it as there is; or, where the
 * first byte says so, any bytes at all. They are done by a control thread with one real worker,
 * all but those that would touch the machine: opening devices is checked only.
 */
#include <stdlib.h>
#include <string.h>

#include "control.h"

#define ANY_BYTES   0xff
#define SAMPLE_BITS 4

static struct gw_control control;
static union gw_any_reply reply;
static union {
	struct gw_control_header header;
	struct gw_control_configure configure;
	struct gw_control_hello hello;
	uint8_t bytes[GW_MESSAGE_BYTES + 1];
} message;

static const size_t sizes[GW_MESSAGE_COUNT] = {
	[GW_MESSAGE_HELLO] = sizeof(struct gw_control_hello),
	[GW_MESSAGE_CONFIGURE] = sizeof(struct gw_control_configure),
	[GW_MESSAGE_DEVICE_SET] = sizeof(struct gw_control_device),
	[GW_MESSAGE_DEVICE_REMOVE] = sizeof(struct gw_control_device_name),
	[GW_MESSAGE_DEVICE_READ] = sizeof(struct gw_control_device_name),
	[GW_MESSAGE_SA_ADD] = sizeof(struct gw_control_sa),
	[GW_MESSAGE_SA_REMOVE] = sizeof(struct gw_control_sa_name),
	[GW_MESSAGE_SA_READ] = sizeof(struct gw_control_sa_name),
	[GW_MESSAGE_SA_LIST] = sizeof(struct gw_control_sa_name),
	[GW_MESSAGE_SA_RESERVE] = sizeof(struct gw_control_sa_reserve),
	[GW_MESSAGE_SA_MOVE] = sizeof(struct gw_control_sa_move),
	[GW_MESSAGE_SA_PATH_MTU] = sizeof(struct gw_control_sa_path_mtu),
	[GW_MESSAGE_TUNNEL_SET] = sizeof(struct gw_control_tunnel),
	[GW_MESSAGE_POLICY_SET] = sizeof(struct gw_control_policy),
	[GW_MESSAGE_POLICY_REMOVE] = sizeof(struct gw_control_policy_name),
	[GW_MESSAGE_ROUTE_SET] = sizeof(struct gw_control_route),
	[GW_MESSAGE_ROUTE_REMOVE] = sizeof(struct gw_control_route),
	[GW_MESSAGE_NEIGHBOUR_SET] = sizeof(struct gw_control_neighbour),
	[GW_MESSAGE_NEIGHBOUR_REMOVE] = sizeof(struct gw_control_neighbour),
	[GW_MESSAGE_COMMIT] = sizeof(struct gw_control_plain),
	[GW_MESSAGE_CLEAR] = sizeof(struct gw_control_plain),
	[GW_MESSAGE_COUNTERS_READ] = sizeof(struct gw_control_worker_name),
	[GW_MESSAGE_SHUT_DOWN] = sizeof(struct gw_control_plain),
};

static void stamp(uint16_t type)
{
	message.header = (struct gw_control_header){
		.version = GW_CONTROL_VERSION,
		.type = type,
		.bytes = (uint32_t)sizes[type],
		.request = 1,
	};
}

/* Do the message at hand; whatever it says, there is one whole answer, or a promise is broken. */
static void handle(size_t bytes)
{
	size_t answer = gw_control_handle(&control, message.bytes, bytes, &reply);

	if (answer < sizeof(reply.reply) || answer > sizeof(reply) ||
	    reply.reply.header.bytes != answer ||
	    !memchr(reply.reply.reason, 0, sizeof(reply.reply.reason)))
		abort();
	control.ends = false;
}

static void ask(uint16_t type)
{
	memset(message.bytes + sizeof(message.header), 0, sizes[type] - sizeof(message.header));
	stamp(type);
	handle(sizes[type]);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	if (gw_control_init(&control))
		abort();
	message.hello.drop_reasons = GW_DROP_REASON_COUNT;
	stamp(GW_MESSAGE_HELLO);
	handle(sizes[GW_MESSAGE_HELLO]);
	memset(&message, 0, sizeof(message));
	message.configure = (struct gw_control_configure){
		.workers = 1,
		.cpus = {GW_ANY_CPU},
		.inbound_bits = SAMPLE_BITS,
		.outbound_sas = 1 << SAMPLE_BITS,
		.tunnels = 4,
		.frames = 512,
		.frame_bytes = 2048,
		.batch_low = 64,
		.batch_high = 256,
	};
	stamp(GW_MESSAGE_CONFIGURE);
	handle(sizes[GW_MESSAGE_CONFIGURE]);
	return reply.reply.error;
}

/* Take everything back, so that one input does not depend on another. */
static void start_over(void)
{
	while (control.sas.count) {
		struct gw_control_sa_name name = {
			.cookie = ((struct gw_sa_entry *)control.sas.items[0])->record.cookie};

		memcpy(message.bytes, &name, sizeof(name));
		stamp(GW_MESSAGE_SA_REMOVE);
		handle(sizeof(name));
		if (reply.reply.error)
			abort();
	}
	ask(GW_MESSAGE_CLEAR);
	ask(GW_MESSAGE_COMMIT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *end = data + size;

	if (size && data[0] == ANY_BYTES) {
		size_t bytes = size - 1 < sizeof(message) ? size - 1 : sizeof(message);

		memcpy(message.bytes, data + 1, bytes);
		if (gw_check_message(message.bytes, bytes) != GW_OK)
			handle(bytes);
		return 0;
	}
	while (data < end) {
		uint16_t type = (uint16_t)(1 + *data++ % (GW_MESSAGE_COUNT - 1));
		size_t body = sizes[type] - sizeof(message.header), left = (size_t)(end - data);

		memset(message.bytes, 0, sizes[type]);
		memcpy(message.bytes + sizeof(message.header), data, left < body ? left : body);
		data += left < body ? left : body;
		stamp(type);
		if (type == GW_MESSAGE_DEVICE_SET)
			gw_check_message(message.bytes, sizes[type]);
		else
			handle(sizes[type]);
	}
	start_over();
	return 0;
}
