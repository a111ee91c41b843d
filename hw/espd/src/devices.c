/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "control.h"

/* Around the IP packets of a device, with an Ethernet header and a VLAN tag. */
#define FRAME_OVERHEAD (GW_FRAME_DATA + GW_TAILROOM + 18)

struct opening {
	const struct gw_control_device *device;
	uint16_t queue;
	bool owns_queue;
	int steering_fd;
	int error;
	uint8_t receive_method;
	uint8_t send_method;
	char reason[GW_REASON_BYTES]; /* why not, or why not better */
};

static uint8_t kind_of(const struct gw_io *io)
{
	return io ? (uint8_t)io->method->kind : GW_IO_UNSPECIFIED;
}

static void open_port(struct gw_thread *thread, void *argument)
{
	struct opening *opening = argument;
	struct gw_port *port =
		gw_port_open(thread, opening->device, opening->queue, opening->owns_queue,
			     opening->steering_fd, opening->reason, &opening->error);

	if (!port)
		return;
	memcpy(opening->reason, port->reason, sizeof(opening->reason));
	opening->receive_method = kind_of(port->receiver);
	opening->send_method = kind_of(port->sender);
	if (!gw_thread_add_port(thread, port)) {
		gw_port_close(thread, port);
		opening->error = -E2BIG;
	}
}

static void close_ports(struct gw_thread *thread, void *argument)
{
	gw_thread_close_device(thread, *(const uint32_t *)argument);
}

static void close_device(struct gw_daemon *daemon, uint32_t device)
{
	for (uint32_t i = 0; i < daemon->thread_count; i++)
		gw_thread_call(daemon->threads[i], close_ports, &device);
}

/* A TUN device's queues all receive, whoever has them; the others send by one queue more or less. */
static bool owns_queue(const struct gw_control_device *device, uint32_t queue)
{
	return queue < device->queues || device->receive_methods[0] == GW_IO_TUN;
}

/* Open a queue of its own for every worker: those beyond the device's only send. */
static int open_device(struct gw_daemon *daemon, const struct gw_control_device *device,
		       int steering_fd, struct opening *first)
{
	uint32_t count =
		device->queues > daemon->thread_count ? device->queues : daemon->thread_count;

	for (uint32_t queue = 0; queue < count; queue++) {
		struct opening opening = {
			.device = device,
			.queue = (uint16_t)(queue % device->queues),
			.owns_queue = owns_queue(device, queue),
			.steering_fd = -1,
		};

		if (steering_fd >= 0 && queue < device->queues)
			opening.steering_fd = fcntl(steering_fd, F_DUPFD_CLOEXEC, 0);
		gw_thread_call(daemon->threads[queue % daemon->thread_count], open_port, &opening);
		if (queue == 0 || opening.error)
			*first = opening;
		if (opening.error)
			return opening.error;
	}
	return 0;
}

/* A device without what may change while it is open. */
static struct gw_control_device as_opened(const struct gw_control_device *device)
{
	struct gw_control_device opened = *device;

	memset(&opened.header, 0, sizeof(opened.header));
	opened.mtu = 0;
	memset(opened.mac, 0, sizeof(opened.mac));
	memset(opened.address4, 0, sizeof(opened.address4));
	memset(opened.address6, 0, sizeof(opened.address6));
	return opened;
}

/* Whether the agent asks for what is open: sockets opened anew would lose packets, and a TUN device
 * its routes. */
static bool is_same_device(const struct gw_control_device *a, const struct gw_control_device *b)
{
	struct gw_control_device one = as_opened(a), other = as_opened(b);

	return memcmp(&one, &other, sizeof(one)) == 0;
}

/* Note in the ports of a device what may have changed. */
static void use_new(struct gw_thread *thread, void *argument)
{
	const struct gw_control_device *device = argument;

	for (uint32_t i = 0; i < thread->port_count; i++)
		if (thread->ports[i]->device.device == device->device)
			thread->ports[i]->device = *device;
}

/* The number of a BPF map, or 0. */
static uint32_t map_id(int fd)
{
	struct bpf_map_info info;
	union bpf_attr attributes;

	memset(&info, 0, sizeof(info));
	memset(&attributes, 0, sizeof(attributes));
	attributes.info.bpf_fd = (uint32_t)fd;
	attributes.info.info = (uint64_t)(uintptr_t)&info;
	attributes.info.info_len = sizeof(info);
	return syscall(SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &attributes, sizeof(attributes)) ? 0
											 : info.id;
}

struct comparing {
	uint32_t device;
	uint32_t map;
	bool is_same; /* so far */
};

static void compare_map(struct gw_thread *thread, void *argument)
{
	struct comparing *comparing = argument;

	for (uint32_t i = 0; i < thread->port_count; i++) {
		const struct gw_port *port = thread->ports[i];

		if (port->device.device == comparing->device && port->steering_fd >= 0 &&
		    map_id(port->steering_fd) != comparing->map)
			comparing->is_same = false;
	}
}

/* Whether the sockets of a device are in this XSKMAP already: opened anew they would lose packets. */
static bool is_same_steering(struct gw_control *control, const struct gw_control_device *device)
{
	struct gw_daemon *daemon = &control->daemon;
	struct comparing comparing = {.device = device->device, .is_same = true};

	if (!(device->flags & GW_DEVICE_STEERING))
		return true;
	comparing.map = map_id(control->descriptors[0]);
	for (uint32_t i = 0; i < daemon->thread_count; i++)
		gw_thread_call(daemon->threads[i], compare_map, &comparing);
	return comparing.map && comparing.is_same;
}

static void describe(struct gw_thread *thread, void *argument)
{
	struct opening *opening = argument;
	const struct gw_port *port = thread->by_device[opening->device->device];

	if (!port)
		return;
	opening->receive_method = kind_of(port->receiver);
	opening->send_method = kind_of(port->sender);
	memcpy(opening->reason, port->reason, sizeof(opening->reason));
}

int gw_device_set(struct gw_control *control, const void *message, union gw_any_reply *reply)
{
	const struct gw_control_device *device = message;
	struct gw_control_device *known = &control->devices[device->device];
	struct gw_daemon *daemon = &control->daemon;
	struct opening first = {.device = device};
	int error = 0;

	if (device->flags & GW_DEVICE_STEERING && control->descriptors[0] < 0)
		return gw_refuse(reply, GW_E_DESCRIPTOR, "the XSKMAP is missing");
	if (device->ifindex && device->mtu + FRAME_OVERHEAD > daemon->config.frame_bytes)
		return gw_refuse(reply, GW_E_INVALID, "the frames are too small for this MTU");
	if (is_same_device(device, known) && is_same_steering(control, device)) {
		*known = *device;
		for (uint32_t i = 0; i < daemon->thread_count; i++)
			gw_thread_call(daemon->threads[i], use_new, known);
		gw_thread_call(daemon->threads[0], describe, &first);
	} else {
		close_device(daemon, device->device);
		error = open_device(
			daemon, device,
			device->flags & GW_DEVICE_STEERING ? control->descriptors[0] : -1, &first);
	}
	memcpy(reply->reply.reason, first.reason, sizeof(first.reason));
	if (error) {
		close_device(daemon, device->device);
		memset(known, 0, sizeof(*known));
		reply->reply.system_errno = -error;
		return GW_E_SYSTEM;
	}
	*known = *device;
	reply->device.receive_method = first.receive_method;
	reply->device.send_method = first.send_method;
	reply->device.ifindex = device->ifindex ? device->ifindex : if_nametoindex(device->name);
	return GW_OK;
}

int gw_device_remove(struct gw_control *control, const void *message, union gw_any_reply *reply)
{
	const struct gw_control_device_name *name = message;
	struct gw_control_device *known = &control->devices[name->device];

	if (known->device == 0)
		return gw_refuse(reply, GW_E_NO_ENTRY, "no such device");
	close_device(&control->daemon, name->device);
	memset(known, 0, sizeof(*known));
	return GW_OK;
}

struct reading {
	uint32_t device;
	struct gw_control_device_counters *to;
};

static void read_ports(struct gw_thread *thread, void *argument)
{
	const struct reading *reading = argument;
	struct gw_control_device_counters *to = reading->to;

	for (uint32_t i = 0; i < thread->port_count; i++) {
		struct gw_port *port = thread->ports[i];
		struct gw_io_counters counters;

		if (port->device.device != reading->device)
			continue;
		gw_port_counters(port, &counters);
		to->receive_method = kind_of(port->receiver);
		to->send_method = kind_of(port->sender);
		memcpy(to->reply.reason, port->reason, sizeof(to->reply.reason));
		to->received_packets += counters.received_packets;
		to->received_bytes += counters.received_bytes;
		to->sent_packets += counters.sent_packets;
		to->sent_bytes += counters.sent_bytes;
		to->receive_lost += counters.receive_lost;
		to->send_lost += counters.send_lost;
		to->send_refused += port->send_refused;
		to->sent_bursts += counters.sent_bursts;
		to->received_supers += counters.received_supers;
	}
}

int gw_device_read(struct gw_control *control, const void *message, union gw_any_reply *reply)
{
	const struct gw_control_device_name *name = message;
	struct reading reading = {.device = name->device, .to = &reply->device_counters};
	struct gw_daemon *daemon = &control->daemon;

	if (control->devices[name->device].device == 0)
		return gw_refuse(reply, GW_E_NO_ENTRY, "no such device");
	/* The first worker last: what it says of methods stands for all. */
	for (uint32_t i = daemon->thread_count; i > 0; i--)
		gw_thread_call(daemon->threads[i - 1], read_ports, &reading);
	return GW_OK;
}
