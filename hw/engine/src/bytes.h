/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes of packets: unaligned loads and stores in network order, and the Internet checksum. */
#ifndef GW_BYTES_H
#define GW_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define GW_LIKELY(x)   __builtin_expect(!!(x), 1)
#define GW_UNLIKELY(x) __builtin_expect(!!(x), 0)

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define gw_be16(x) __builtin_bswap16(x)
#define gw_be32(x) __builtin_bswap32(x)
#define gw_be64(x) __builtin_bswap64(x)
#else
#define gw_be16(x) ((uint16_t)(x))
#define gw_be32(x) ((uint32_t)(x))
#define gw_be64(x) ((uint64_t)(x))
#endif

static inline uint16_t gw_load16(const uint8_t *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return gw_be16(value);
}

static inline uint32_t gw_load32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return gw_be32(value);
}

static inline void gw_store16(uint8_t *at, uint16_t value)
{
	value = gw_be16(value);
	memcpy(at, &value, sizeof(value));
}

static inline void gw_store32(uint8_t *at, uint32_t value)
{
	value = gw_be32(value);
	memcpy(at, &value, sizeof(value));
}

static inline void gw_store64(uint8_t *at, uint64_t value)
{
	value = gw_be64(value);
	memcpy(at, &value, sizeof(value));
}

/* Wipe memory in a way that no compiler removes. */
static inline void gw_wipe(void *at, size_t bytes)
{
	memset(at, 0, bytes);
	__asm__ __volatile__("" : : "r"(at) : "memory");
}

/* Compare ICVs, whole words all of them, in constant time; 0 if equal. */
static inline uint32_t gw_differs(const uint8_t *a, const uint8_t *b, size_t bytes)
{
	uint32_t difference = 0;

	for (size_t i = 0; i < bytes; i += 4) {
		uint32_t left, right;

		memcpy(&left, a + i, sizeof(left));
		memcpy(&right, b + i, sizeof(right));
		difference |= left ^ right;
	}
	return difference;
}

/* Fold a sum of 16-bit words to 16 bits (RFC 1071). */
static inline uint16_t gw_fold(uint64_t sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/* Two words that are added at once, where the CPU can. */
typedef uint64_t gw_pair __attribute__((vector_size(16)));

/* Sum of the 16-bit words of some bytes, an odd last one padded with zero; not folded. */
static inline uint64_t gw_sum(const uint8_t *at, size_t bytes)
{
	gw_pair sums[2] = {{0}}, words[2];
	const gw_pair low = {UINT32_MAX, UINT32_MAX};
	uint64_t sum;

	/* In the machine's order, whole words at a time: the sum is the same (RFC 1071 §2 (B)). */
	for (; bytes >= sizeof(words); at += sizeof(words), bytes -= sizeof(words)) {
		memcpy(words, at, sizeof(words));
		sums[0] += (words[0] & low) + (words[0] >> 32);
		sums[1] += (words[1] & low) + (words[1] >> 32);
	}
	sums[0] += sums[1];
	sum = gw_be16(gw_fold(sums[0][0] + sums[0][1]));
	for (; bytes >= 4; at += 4, bytes -= 4)
		sum += gw_load32(at);
	if (bytes >= 2) {
		sum += gw_load16(at);
		at += 2;
		bytes -= 2;
	}
	if (bytes)
		sum += (uint64_t)at[0] << 8;
	return sum;
}

/* The checksum after one 16-bit word changed (RFC 1624 §3, equation 3). */
static inline uint16_t gw_update_checksum(uint16_t checksum, uint16_t old_word, uint16_t new_word)
{
	uint64_t sum = (uint16_t)~checksum;

	return (uint16_t)~gw_fold(sum + (uint16_t)~old_word + new_word);
}

#endif
