/* SPDX-License-Identifier: Apache-2.0 */
/* Mixing embeddings; see mix.h. Sums in double. */
#include "stages/mix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"

#define PARALLEL 1e-6 /* angle in radians below which, or near pi, a straight line will do */

static double dot(const float *a, const float *b, int d)
{
    double sum = 0;
    for (int i = 0; i < d; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

static double length(const float *a, int d)
{
    return sqrt(dot(a, a, d));
}

double mix_cosine(const float *a, const float *b, int d)
{
    double lengths = length(a, d) * length(b, d);
    return lengths > 0 ? fmin(fmax(dot(a, b, d) / lengths, -1), 1) : 0;
}

/* Gives the direction of out the length. */
static void rescale(float *out, int d, double to)
{
    double from = length(out, d);
    for (int i = 0; i < d && from > 0; i++)
        out[i] = (float)(out[i] * (to / from));
}

void mix_slerp(const float *a, const float *b, double place, int d, float *out)
{
    double la = length(a, d), lb = length(b, d), angle = acos(mix_cosine(a, b, d));
    double wa = 1 - place, wb = place;
    if (angle > PARALLEL && angle < M_PI - PARALLEL) {
        wa = sin((1 - place) * angle) / sin(angle);
        wb = sin(place * angle) / sin(angle);
    }
    for (int i = 0; i < d; i++)
        out[i] = (float)(wa * (la > 0 ? a[i] / la : 0) + wb * (lb > 0 ? b[i] / lb : 0));
    rescale(out, d, (1 - place) * la + place * lb);
}

void mix_embeds(const float *const *embeds, const double *weights, int count, int d, float *out)
{
    double sum = 0, to = 0;
    for (int i = 0; i < count; i++)
        sum += weights[i];
    if (count == 2) {
        mix_slerp(embeds[0], embeds[1], weights[1] / sum, d, out);
        return;
    }
    memset(out, 0, (size_t)d * sizeof *out);
    for (int i = 0; i < count; i++) {
        double own = length(embeds[i], d), share = weights[i] / sum;
        to += share * own;
        for (int k = 0; k < d && own > 0; k++)
            out[k] += (float)(share * embeds[i][k] / own);
    }
    rescale(out, d, to);
}

void mix_turn(const float *image, const float *from, const float *to, double theta, int d,
              float *out)
{
    double own = length(image, d), lf = length(from, d), lt = length(to, d);
    float *way = xmalloc((size_t)d * sizeof *way);
    for (int i = 0; i < d; i++)
        way[i] = (float)((lt > 0 ? to[i] / lt : 0) - (lf > 0 ? from[i] / lf : 0));
    if (length(way, d) > 0)
        mix_slerp(image, way, theta, d, out);
    else
        memcpy(out, image, (size_t)d * sizeof *out);
    rescale(out, d, own);
    free(way);
}
