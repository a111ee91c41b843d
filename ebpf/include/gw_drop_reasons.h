/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Why a packet or datagram was dropped: the list of gateway/ipsec/drop_reason.py, in its order, for
 * every C program of the project (a test compares the two). Meanings are explained there. A
 * reason's number is its place, from 1, and its number in proto/gateway/api/types/v1/status.proto.
 *
 * GW_DROP_REASONS(X) expands X(NAME, text) for each, where text is the name in metrics and in the
 * API.
 */
#ifndef GW_DROP_REASONS_H
#define GW_DROP_REASONS_H

#define GW_DROP_REASONS(X) \
	X(MALFORMED, "malformed") \
	X(UNSUPPORTED, "unsupported") \
	X(UNKNOWN_SPI, "unknown_spi") \
	X(REPLAY, "replay") \
	X(REPLAY_WINDOW, "replay_window") \
	X(INTEGRITY, "integrity") \
	X(PADDING, "padding") \
	X(SELECTOR_MISMATCH, "selector_mismatch") \
	X(MODE_MISMATCH, "mode_mismatch") \
	X(DUMMY, "dummy") \
	X(SEQUENCE_OVERFLOW, "sequence_overflow") \
	X(SA_EXPIRED, "sa_expired") \
	X(ECN_ILLEGAL, "ecn_illegal") \
	X(TOO_BIG, "too_big") \
	X(TTL_EXPIRED, "ttl_expired") \
	X(FRAGMENT, "fragment") \
	X(POLICY_DISCARD, "policy_discard") \
	X(NO_POLICY, "no_policy") \
	X(CLEAR_INBOUND, "clear_inbound") \
	X(NO_SA, "no_sa") \
	X(SEND_FAILED, "send_failed") \
	X(IKE_MALFORMED, "ike_malformed") \
	X(IKE_VERSION, "ike_version") \
	X(IKE_UNKNOWN_SPI, "ike_unknown_spi") \
	X(IKE_INTEGRITY, "ike_integrity") \
	X(IKE_MESSAGE_ID, "ike_message_id") \
	X(IKE_UNEXPECTED, "ike_unexpected") \
	X(IKE_UNKNOWN_PEER, "ike_unknown_peer") \
	X(IKE_HALF_OPEN_LIMIT, "ike_half_open_limit") \
	X(IKE_COOKIE, "ike_cookie") \
	X(NO_ENGINE, "no_engine") \
	X(IKE_RATE_LIMIT, "ike_rate_limit")

#define GW_DROP_REASON_NUMBER(name, text) GW_DROP_##name,
enum gw_drop_reason {
	GW_DROP_NONE,
	GW_DROP_REASONS(GW_DROP_REASON_NUMBER) GW_DROP_REASON_COUNT,
};
#undef GW_DROP_REASON_NUMBER

#endif
