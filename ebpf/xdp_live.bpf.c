// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Live-frame transmission: the engine has frames in the memory of a map, and BPF_PROG_TEST_RUN with
 * BPF_F_TEST_XDP_LIVE_FRAMES runs gw_live once for each, on a page that then goes out of a device as
 * if an XDP program had redirected it there. See gw_live.h for how it is accounted for.
 *
 * Attached to a device of its own gw_live drops what comes in: it must be attached somewhere, since a
 * test run of a program that is not changes the kernel's XDP dispatcher, for milliseconds each time.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "gw_live.h"

/* Both set at load: the least and the most that the kernel can send. */
#define MIN_LENGTH 14
const volatile __u32 gw_live_max_length = 1536;

/* The frames of a worker; how many and how long is set at load. */
struct gw_live_frame {
	__u8 octets[2048];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct gw_live_frame);
	__uint(max_entries, 4096);
} gw_live_frames SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct gw_live_burst);
	__uint(max_entries, 1);
} gw_live_burst SEC(".maps");

static __always_inline struct gw_live_burst *gw_burst(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&gw_live_burst, &key);
}

/* Make the frame of this run that of the slot. */
static __always_inline int gw_load_frame(struct xdp_md *ctx, const struct gw_live_slot *slot,
					 __u32 stored)
{
	__u32 number = slot->frame, offset = slot->offset, length = slot->length;
	struct gw_live_frame *frame = bpf_map_lookup_elem(&gw_live_frames, &number);
	__u32 now = ctx->data_end - ctx->data;

	if (!frame || offset > GW_LIVE_MAX_OFFSET || length < MIN_LENGTH ||
	    length > gw_live_max_length)
		return -1;
	if (now != length && bpf_xdp_adjust_tail(ctx, (int)length - (int)now))
		return -1;
	if (stored >= MIN_LENGTH && stored < length)
		length = stored;
	return bpf_xdp_store_bytes(ctx, 0, frame->octets + offset, length);
}

SEC("xdp")
int gw_live(struct xdp_md *ctx)
{
	struct gw_live_burst *burst = gw_burst();
	__u32 number;

	if (!burst)
		return XDP_DROP;
	number = burst->next_slot;
	if (number >= burst->slots_used || number >= GW_LIVE_SLOTS)
		return XDP_DROP;
	burst->next_slot = number + 1;
	if (gw_load_frame(ctx, &burst->slots[number], burst->stored)) {
		burst->refused++;
		return XDP_DROP;
	}
	if (!burst->ifindex) {
		burst->sent++;
		return XDP_PASS;
	}
	burst->cpu = bpf_get_smp_processor_id();
	burst->pending++;
	return bpf_redirect(burst->ifindex, 0);
}

/* Is this event about frames of ours? `frames` of them are told of now. */
static __always_inline struct gw_live_burst *gw_ours(__u64 frames)
{
	struct gw_live_burst *burst = gw_burst();

	if (!burst || burst->pending < frames || !frames ||
	    burst->cpu != bpf_get_smp_processor_id())
		return NULL;
	burst->pending -= frames;
	return burst;
}

static __always_inline void gw_lose(struct gw_live_burst *burst, __s64 error, __u64 frames)
{
	__u64 number = error < 0 ? -error : GW_LIVE_LOST_FULL;

	if (number < GW_LIVE_ERRNOS)
		burst->lost[number] += frames;
}

/* xdp_devmap_xmit(from_device, to_device, sent, drops, error): what ndo_xdp_xmit() did. */
SEC("raw_tp")
int gw_live_sent(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 sent = (__u32)ctx->args[2], dropped = (__u32)ctx->args[3];
	struct gw_live_burst *burst = gw_ours(sent + dropped);

	if (burst) {
		burst->sent += sent;
		gw_lose(burst, (__s32)ctx->args[4], dropped);
	}
	return 0;
}

/* xdp_redirect_err(device, program, target, error, ...): a frame that no device was asked to send. */
SEC("raw_tp")
int gw_live_refused(struct bpf_raw_tracepoint_args *ctx)
{
	struct gw_live_burst *burst = gw_ours(1);

	if (burst)
		gw_lose(burst, (__s32)ctx->args[3], 1);
	return 0;
}

char gw_licence[] SEC("license") = "Dual BSD/GPL";
