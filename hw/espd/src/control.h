/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control thread: what the agent asks for, one request after the other.
 *
 *   control.c   the socket, connections, descriptors, events
 *   check.c     whether a message is what its type promises: nothing that it lets through is out of
 *               range; it looks at bytes only
 *   requests.c  the table of requests, and those about espd itself
 *   devices.c, sas.c, entries.c   requests about devices, SAs, and tables
 *
 * A handler is given a message that is checked, and writes a reply whose header is filled in for it.
 */
#ifndef GW_CONTROL_THREAD_H
#define GW_CONTROL_THREAD_H

#include "daemon.h"
#include "table.h"
#include "thread.h"

/* As many as the kernel passes with one message (SCM_MAX_FD). */
#define GW_MAX_DESCRIPTORS 253
/* The longest reply, and with it the longest message. */
#define GW_MESSAGE_BYTES sizeof(struct gw_control_sa_list)

struct gw_sa_entry {
	struct gw_control_sa_record record; /* its `usage` is not kept up to date */
	uint32_t ref;
	struct gw_selector_set selectors;
	/* As it would be added now, keys and all, up to its last selector: for a hand-over. */
	struct gw_sa_params *params;
	size_t params_bytes;
};

/* What policies, routes and neighbours are, and will be at the next COMMIT. */
struct gw_staged {
	struct gw_table staged;
	struct gw_table committed;
	bool is_changed; /* since the last COMMIT that was in force */
};

struct gw_control {
	struct gw_daemon daemon;
	struct gw_table sas; /* of struct gw_sa_entry, by cookie */
	struct gw_staged policies;
	struct gw_staged routes;
	struct gw_staged neighbours;
	struct gw_control_device devices[GW_MAX_DEVICES + 1]; /* device 0: there is none */
	uint8_t *places[GW_MAX_WORKERS]; /* [reference]: whether an outbound SA has it */
	uint32_t next_place[GW_MAX_WORKERS];
	uint8_t life[16];
	uint64_t started_ns;
	bool is_greeted; /* somebody said HELLO on the connection at hand */
	bool ends;
	int descriptors[GW_MAX_DESCRIPTORS]; /* of the request at hand; -1: none, or taken */
};

union gw_any_reply {
	struct gw_control_reply reply;
	struct gw_control_hello_reply hello;
	struct gw_control_device_reply device;
	struct gw_control_device_counters device_counters;
	struct gw_control_sa_reply sa;
	struct gw_control_sa_state sa_state;
	struct gw_control_sa_list sa_list;
	struct gw_control_counters counters;
};

/* A request: gets a checked message of its type; fills in what is behind the reply's head. */
typedef int (*gw_request_handler)(struct gw_control *control, const void *message,
				  union gw_any_reply *reply);

/**
 * gw_control_init() - begin a life: no workers, no SAs.
 * @control: filled in.
 *
 * Return: 0, or -errno.
 */
int gw_control_init(struct gw_control *control);

/**
 * gw_control_end() - stop all workers and wipe everything.
 * @control: initialized.
 */
void gw_control_end(struct gw_control *control);

/**
 * gw_control_vanish() - wipe all keys and end this process: another one carries the packets.
 * @control: handed over; its threads stand still, and nothing that they share with others is touched.
 */
_Noreturn void gw_control_vanish(struct gw_control *control);

/**
 * gw_check_message() - say whether a message may be believed.
 * @message: any bytes, aligned for 64-bit fields.
 * @bytes: how many.
 *
 * Return: GW_OK, GW_E_SIZE, GW_E_VERSION, GW_E_TYPE or GW_E_INVALID.
 */
int gw_check_message(const void *message, size_t bytes);

/**
 * gw_control_handle() - do one request.
 * @control: see there; its `descriptors` came with the message.
 * @message: any bytes, aligned; not kept.
 * @bytes: how many.
 * @reply: written.
 *
 * Return: bytes of the reply.
 */
size_t gw_control_handle(struct gw_control *control, const void *message, size_t bytes,
			 union gw_any_reply *reply);

/**
 * gw_control_forget() - the connection is gone: what was not committed is forgotten.
 * @control: see there.
 */
void gw_control_forget(struct gw_control *control);

/**
 * gw_control_serve() - serve a listening socket until SHUT_DOWN or a signal.
 * @control: initialized.
 * @listener: SOCK_SEQPACKET, listening.
 * @signals: a signalfd.
 *
 * Return: 0, or -errno.
 */
int gw_control_serve(struct gw_control *control, int listener, int signals);

/**
 * gw_refuse() - write why.
 * @reply: of the request at hand.
 * @error: returned.
 * @reason: for humans.
 */
int gw_refuse(union gw_any_reply *reply, int error, const char *reason);

/* --- handlers, by file */

/* devices.c */
int gw_device_set(struct gw_control *control, const void *message, union gw_any_reply *reply);
int gw_device_remove(struct gw_control *control, const void *message, union gw_any_reply *reply);
int gw_device_read(struct gw_control *control, const void *message, union gw_any_reply *reply);

/* sas.c */
int gw_request_sa_add(struct gw_control *control, const void *message, union gw_any_reply *reply);
int gw_request_sa_remove(struct gw_control *control, const void *message,
			 union gw_any_reply *reply);
int gw_request_sa_read(struct gw_control *control, const void *message, union gw_any_reply *reply);
int gw_request_sa_list(struct gw_control *control, const void *message, union gw_any_reply *reply);
int gw_request_sa_reserve(struct gw_control *control, const void *message,
			  union gw_any_reply *reply);
int gw_request_sa_move(struct gw_control *control, const void *message, union gw_any_reply *reply);
int gw_request_sa_path_mtu(struct gw_control *control, const void *message,
			   union gw_any_reply *reply);
int gw_request_tunnel_set(struct gw_control *control, const void *message,
			  union gw_any_reply *reply);
/* Write the message that would add an SA as it is now; whoever asked wipes it. */
void gw_sa_describe(const struct gw_sa_entry *sa, struct gw_control_sa *message);
/* Note what an event told; return false where its SA is gone. */
bool gw_sa_note_event(struct gw_control *control, struct gw_control_event_sa *event);
int gw_compare_sas(const void *a, const void *b);
void gw_sas_clear(struct gw_control *control);

/* entries.c */
int gw_policy_set(struct gw_control *control, const void *message, union gw_any_reply *reply);
int gw_policy_remove(struct gw_control *control, const void *message, union gw_any_reply *reply);
int gw_route_set(struct gw_control *control, const void *message, union gw_any_reply *reply);
int gw_route_remove(struct gw_control *control, const void *message, union gw_any_reply *reply);
int gw_neighbour_set(struct gw_control *control, const void *message, union gw_any_reply *reply);
int gw_neighbour_remove(struct gw_control *control, const void *message, union gw_any_reply *reply);
int gw_commit(struct gw_control *control, const void *message, union gw_any_reply *reply);
int gw_clear(struct gw_control *control, const void *message, union gw_any_reply *reply);
void gw_entries_init(struct gw_control *control);
void gw_entries_revert(struct gw_control *control);
void gw_entries_clear(struct gw_control *control);

#endif
