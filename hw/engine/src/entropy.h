/* SPDX-License-Identifier: Apache-2.0 */
/* Unpredictable bytes for the IVs of CBC, from the seed a worker was given. */
#ifndef GW_ENTROPY_H
#define GW_ENTROPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gw_entropy;

/**
 * gw_entropy_new() - start from a seed.
 * @seed: 32 unpredictable bytes, used for nothing else; the caller wipes them.
 *
 * Return: NULL without memory, or where the crypto library refuses.
 */
struct gw_entropy *gw_entropy_new(const uint8_t seed[32]);

/**
 * gw_entropy_free() - wipe and free; NULL is ignored.
 * @entropy: not to be used any more.
 */
void gw_entropy_free(struct gw_entropy *entropy);

/**
 * gw_entropy_take() - write some bytes, which are never given out again.
 * @entropy: of the calling thread's worker.
 * @to: where.
 * @bytes: at most 16.
 *
 * Return: false where the crypto library failed; then nothing may be sent.
 */
bool gw_entropy_take(struct gw_entropy *entropy, uint8_t *to, size_t bytes);

#endif
