/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How near a network or the whole pipeline must be to the reference's f32, by the dtype that is
 * computed in; stages/nn's ops have theirs in tests/unit/stages/op_limits.h. torch's own bf16 runs of
 * these networks are off by an NMSE of 1e-4 to 5e-4.
 */
#ifndef GOLDEN_LIMITS_H
#define GOLDEN_LIMITS_H

#include "golden.h"
#include "stages/nn/nn.h"

#define LIMIT_NETWORK_F32  ((struct golden_limit){.nmse = 1e-8, .peak = 1e-4})
#define LIMIT_NETWORK_BF16 ((struct golden_limit){.nmse = 1e-3, .peak = 0.05})
/* A block is a few ops deep. */
#define LIMIT_BLOCK_F32  ((struct golden_limit){.nmse = 1e-10, .peak = 1e-5})
#define LIMIT_BLOCK_BF16 ((struct golden_limit){.nmse = 2e-4, .peak = 0.02})

/* A picture of the whole pipeline in f32, text to the upsampler's pixels. */
#define LIMIT_PIPELINE_PSNR 50.0 /* dB */
/* The same computed in bf16, of the shipped model: its steps forgive small errors. */
#define LIMIT_PIPELINE_PSNR_BF16 35.0

static inline struct golden_limit limit_network(enum dtype dtype)
{
    return dtype == DTYPE_F32 ? LIMIT_NETWORK_F32 : LIMIT_NETWORK_BF16;
}

static inline struct golden_limit limit_block(enum dtype dtype)
{
    return dtype == DTYPE_F32 ? LIMIT_BLOCK_F32 : LIMIT_BLOCK_BF16;
}

#endif
