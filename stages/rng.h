/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torch's CPU generator: MT19937 seeded with the low 32 bits of the seed. Uniform draws equal
 * torch's bit for bit, normal draws within 1e-6: torch takes the scalar Box-Muller path (which
 * keeps a second normal in double) below 16 numbers and a 16-wide one from 16 on. Source: ATen's
 * MT19937RNGEngine.h, CPUGeneratorImpl, and native/cpu/DistributionTemplates.h (normal_fill).
 */
#ifndef UNCLIP_STAGES_RNG_H
#define UNCLIP_STAGES_RNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct rng {
    uint32_t state[624];
    int left;        /* draws until the state is refilled */
    int next;        /* index of the next word */
    bool has_normal; /* a cached second normal of the scalar path */
    double normal;
};

void rng_seed(struct rng *rng, uint64_t seed);
uint32_t rng_random(struct rng *rng);
/* Another generator, whose seed follows from what `rng`, which stays as it is, would draw next and
   the branch's number; out may be rng. */
void rng_fork(const struct rng *rng, uint32_t branch, struct rng *out);
void rng_uniform(struct rng *rng, float *out, size_t count); /* torch.rand: [0, 1) */
void rng_normal(struct rng *rng, float *out, size_t count); /* torch.randn of a contiguous tensor */

/* Travels with a task: RNG_BYTES little-endian bytes. Parsing checks them: ERR_INVALID_RECORD. */
#define RNG_BYTES (624 * 4 + 4 + 4 + 4 + 8)
void rng_store(const struct rng *rng, uint8_t out[RNG_BYTES]);
int rng_parse(struct rng *rng, const void *bytes, size_t size, struct err *err);

#endif
