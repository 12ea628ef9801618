/* SPDX-License-Identifier: Apache-2.0 */
/* Elementwise ops and the timestep embedding (layers.h). */
#include <math.h>
#include <stdlib.h>

#include "common/memory.h"
#include "stages/nn/context.h"
#include "stages/nn/kernels.h"
#include "stages/nn/layers.h"
#include "stages/nn/parallel.h"
#include "stages/nn/profile.h"

static char *part_at(struct tensor x, int64_t part)
{
    return (char *)x.data + (size_t)part * PART_ELEMENTS * dtype_size(x.dtype);
}

struct tensor nn_act(struct nn *nn, struct tensor x, enum act act)
{
    int64_t began = profile_begin(nn);
    if (!nn_expect(nn, "an activation", x, x.rank, x.dim))
        return (struct tensor){0};
    struct tensor y = nn_new(nn, x.dtype, x.rank, x.dim);
    if (nn_failed(nn))
        return y;
    int64_t count = tensor_count(x), parts = part_count(count, PART_ELEMENTS);
#pragma omp parallel for schedule(static) num_threads(threads_for_elements(nn, count))
    for (int64_t part = 0; part < parts; part++)
        kernels()->act(part_at(y, part), part_at(x, part), x.dtype,
                       (size_t)part_size(count, PART_ELEMENTS, part), act);
    profile_end_moved(nn, began, "act", x, (struct tensor){0}, y);
    return y;
}

struct tensor nn_add(struct nn *nn, struct tensor a, struct tensor b)
{
    int64_t began = profile_begin(nn);
    if (!nn_expect(nn, "add", a, b.rank, b.dim))
        return (struct tensor){0};
    BUG_ON(a.dtype != b.dtype);
    struct tensor y = nn_new(nn, a.dtype, a.rank, a.dim);
    if (nn_failed(nn))
        return y;
    int64_t count = tensor_count(a), parts = part_count(count, PART_ELEMENTS);
#pragma omp parallel for schedule(static) num_threads(threads_for_elements(nn, count))
    for (int64_t part = 0; part < parts; part++)
        kernels()->add(part_at(y, part), part_at(a, part), part_at(b, part), a.dtype,
                       (size_t)part_size(count, PART_ELEMENTS, part));
    profile_end_moved(nn, began, "add", a, b, y);
    return y;
}

struct tensor nn_timestep_embedding(struct nn *nn, const float *timesteps, int64_t n,
                                    int64_t channels, bool flip_sin_to_cos, float freq_shift)
{
    if (nn_failed(nn))
        return (struct tensor){0};
    int64_t half = channels / 2;
    float *rows = xcalloc((size_t)(n * channels), sizeof(float)); /* an odd last channel stays 0 */
    for (int64_t i = 0; i < half; i++) {
        float exponent = -logf(10000.0f) * (float)i / ((float)half - freq_shift);
        float frequency = expf(exponent);
        for (int64_t row = 0; row < n; row++) {
            float angle = timesteps[row] * frequency;
            float *out = rows + row * channels;
            out[i] = flip_sin_to_cos ? cosf(angle) : sinf(angle);
            out[half + i] = flip_sin_to_cos ? sinf(angle) : cosf(angle);
        }
    }
    struct tensor y = nn_from_f32(nn, rows, 2, (int64_t[]){n, channels});
    free(rows);
    return y;
}
