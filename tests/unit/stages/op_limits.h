/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far each op may be from its naive twin (stages/nn/ref), for inputs and weights that are exact
 * in the compute dtype: NMSE is Σ(r - e)² / Σe², maximum is max |r - e| / max |e|. Where bf16's
 * limit is 2e-6 it is the rounding of the result itself (half a unit is 2⁻⁹ of the value, at most).
 * LIMIT_CONV2D_SUMS is for values of which f32 cannot hold the squares (winograd.inc), and for sums
 * of thousands of equal terms: f32 errs in each to the same side, and results that are all alike
 * are rounded alike; also for kernels that are all smooth (winograd.h).
 *
 *  X(op, NMSE in f32, maximum in f32, NMSE in bf16, maximum in bf16)
 */
#ifndef UNCLIP_TESTS_UNIT_STAGES_OP_LIMITS_H
#define UNCLIP_TESTS_UNIT_STAGES_OP_LIMITS_H

#define LIMITS_TABLE(X)                                                                            \
    X(LIMIT_LINEAR, 1e-11, 1e-5, 5e-6, 5e-3)                                                       \
    X(LIMIT_CONV2D, 1e-11, 1e-5, 5e-6, 5e-3)                                                       \
    X(LIMIT_WINOGRAD, 2e-11, 2e-5, 5e-6, 5e-3)                                                     \
    X(LIMIT_CONV2D_SUMS, 1e-8, 1e-4, 2e-5, 1e-2)                                                   \
    X(LIMIT_GROUP_NORM, 1e-11, 1e-5, 5e-6, 5e-3)                                                   \
    X(LIMIT_LAYER_NORM, 1e-11, 1e-5, 5e-6, 5e-3)                                                   \
    X(LIMIT_ATTENTION, 1e-11, 1e-5, 2e-5, 1e-2)                                                    \
    X(LIMIT_ACT, 1e-12, 1e-6, 5e-6, 4e-3)                                                          \
    X(LIMIT_ADD, 0, 0, 5e-6, 4e-3)                                                                 \
    X(LIMIT_MOVE, 0, 0, 0, 0)                                                                      \
    X(LIMIT_AVG_POOL, 1e-13, 1e-6, 5e-6, 4e-3)                                                     \
    X(LIMIT_TIMESTEP, 1e-9, 1.5e-4, 5e-6, 4e-3)

enum limit {
#define X(id, ...) id,
    LIMITS_TABLE(X)
#undef X
        LIMIT_COUNT
};

static const struct {
    const char *name;
    double nmse[2], maximum[2]; /* f32, bf16 */
} limits[LIMIT_COUNT] = {
#define X(id, f32_nmse, f32_maximum, bf16_nmse, bf16_maximum)                                      \
    [id] = {#id, {f32_nmse, bf16_nmse}, {f32_maximum, bf16_maximum}},
    LIMITS_TABLE(X)
#undef X
};

#endif
