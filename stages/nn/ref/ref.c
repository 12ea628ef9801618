/* SPDX-License-Identifier: Apache-2.0 */
/* The naive twins (ref.h). */
#include "stages/nn/ref/ref.h"

#include <math.h>
#include <stdlib.h>

#include "common/memory.h"

double ref_act(double x, enum act act)
{
    switch (act) {
    case ACT_NONE:
        return x;
    case ACT_SILU:
        return x / (1 + exp(-x));
    case ACT_GELU:
        return 0.5 * x * (1 + erf(x / sqrt(2)));
    case ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    case ACT_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    case ACT_RELU:
        return x > 0 ? x : 0;
    }
    BUG("no such activation");
}

void ref_linear(float *dst, const float *src, const float *weights, const float *bias, int64_t rows,
                int64_t ic, int64_t oc, enum act act, const float *residual)
{
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t o = 0; o < oc; o++) {
            double sum = bias ? (double)bias[o] : 0;
            for (int64_t i = 0; i < ic; i++)
                sum += (double)src[row * ic + i] * (double)weights[o * ic + i];
            sum = ref_act(sum, act);
            dst[row * oc + o] = (float)(sum + (residual ? (double)residual[row * oc + o] : 0));
        }
    }
}

/* The value at output (n, oh, ow, o), before anything is added. */
static double convolve(const struct ref_conv *conv, int64_t n, int64_t oh, int64_t ow, int64_t o)
{
    double sum = 0;
    for (int64_t kh = 0; kh < conv->k; kh++) {
        for (int64_t kw = 0; kw < conv->k; kw++) {
            int64_t y = oh * conv->stride - conv->pad + kh, x = ow * conv->stride - conv->pad + kw;
            if (y < 0 || y >= conv->ih || x < 0 || x >= conv->iw)
                continue;
            const float *pixel = conv->src + ((n * conv->ih + y) * conv->iw + x) * conv->ic;
            const float *weight = conv->weights + o * conv->ic * conv->k * conv->k;
            for (int64_t i = 0; i < conv->ic; i++)
                sum += (double)pixel[i] * (double)weight[(i * conv->k + kh) * conv->k + kw];
        }
    }
    return sum;
}

void ref_conv2d(float *dst, const struct ref_conv *conv)
{
    int64_t oh = (conv->ih + 2 * conv->pad - conv->k) / conv->stride + 1;
    int64_t ow = (conv->iw + 2 * conv->pad - conv->k) / conv->stride + 1;
    for (int64_t place = 0; place < conv->n * oh * ow * conv->oc; place++) {
        int64_t o = place % conv->oc, x = place / conv->oc % ow, y = place / conv->oc / ow % oh;
        int64_t n = place / conv->oc / ow / oh;
        double sum = convolve(conv, n, y, x, o);
        sum += conv->bias ? (double)conv->bias[o] : 0;
        sum += conv->add_channels ? (double)conv->add_channels[n * conv->oc + o] : 0;
        sum += conv->residual ? (double)conv->residual[place] : 0;
        dst[place] = (float)sum;
    }
}

/* Normalises the channels [from, to) of one sample. */
static void norm_group(float *dst, const struct ref_group_norm *norm, int64_t n, int64_t from,
                       int64_t to)
{
    const float *src = norm->src + n * norm->pixels * norm->c;
    double mean = 0, variance = 0, count = (double)(norm->pixels * (to - from));
    for (int64_t i = 0; i < norm->pixels; i++) {
        for (int64_t c = from; c < to; c++)
            mean += (double)src[i * norm->c + c] / count;
    }
    for (int64_t i = 0; i < norm->pixels; i++) {
        for (int64_t c = from; c < to; c++)
            variance += pow((double)src[i * norm->c + c] - mean, 2) / count;
    }
    for (int64_t i = 0; i < norm->pixels; i++) {
        for (int64_t c = from; c < to; c++) {
            double y = ((double)src[i * norm->c + c] - mean) / sqrt(variance + norm->eps);
            y = y * (double)norm->gamma[c] + (double)norm->beta[c];
            if (norm->scale_shift)
                y = y * (1 + (double)norm->scale_shift[n * 2 * norm->c + c]) +
                    (double)norm->scale_shift[n * 2 * norm->c + norm->c + c];
            dst[(n * norm->pixels + i) * norm->c + c] = (float)ref_act(y, norm->act);
        }
    }
}

void ref_group_norm(float *dst, const struct ref_group_norm *norm)
{
    int64_t size = norm->c / norm->groups;
    for (int64_t n = 0; n < norm->n; n++) {
        for (int64_t group = 0; group < norm->groups; group++)
            norm_group(dst, norm, n, group * size, (group + 1) * size);
    }
}

void ref_layer_norm(float *dst, const float *src, const float *gamma, const float *beta,
                    int64_t rows, int64_t c, double eps)
{
    for (int64_t row = 0; row < rows; row++) {
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < c; i++)
            mean += (double)src[row * c + i] / (double)c;
        for (int64_t i = 0; i < c; i++)
            variance += pow((double)src[row * c + i] - mean, 2) / (double)c;
        for (int64_t i = 0; i < c; i++) {
            double y = ((double)src[row * c + i] - mean) / sqrt(variance + eps);
            dst[row * c + i] = (float)(y * (double)gamma[i] + (double)beta[i]);
        }
    }
}

/* p [lk] = softmax of one query's scores. */
static void softmax_row(double *p, const struct ref_attention *a, int64_t n, int head, int64_t row)
{
    const float *q = a->q + (n * a->lq + row) * a->q_stride + head * a->head_dim;
    double maximum = -INFINITY, sum = 0;
    for (int64_t j = 0; j < a->lk; j++) {
        const float *k = a->k + (n * a->lk + j) * a->k_stride + head * a->head_dim;
        p[j] = 0;
        for (int d = 0; d < a->head_dim; d++)
            p[j] += (double)q[d] * (double)k[d];
        p[j] *= a->scale;
        if (a->mask) {
            int64_t mask_n = a->mask_n == 1 ? 0 : n, mask_row = a->mask_lq == 1 ? 0 : row;
            p[j] += (double)a->mask[(mask_n * a->mask_lq + mask_row) * a->lk + j];
        }
        maximum = fmax(maximum, p[j]);
    }
    for (int64_t j = 0; j < a->lk; j++)
        sum += p[j] = exp(p[j] - maximum);
    for (int64_t j = 0; j < a->lk; j++)
        p[j] /= sum;
}

void ref_attention(float *dst, const struct ref_attention *a)
{
    double *p = xmalloc((unsigned long)a->lk * sizeof(*p));
    for (int64_t n = 0; n < a->n; n++) {
        for (int head = 0; head < a->heads; head++) {
            for (int64_t row = 0; row < a->lq; row++) {
                softmax_row(p, a, n, head, row);
                for (int d = 0; d < a->head_dim; d++) {
                    double sum = 0;
                    for (int64_t j = 0; j < a->lk; j++)
                        sum += p[j] *
                               (double)a->v[(n * a->lk + j) * a->v_stride + head * a->head_dim + d];
                    dst[((n * a->lq + row) * a->heads + head) * a->head_dim + d] = (float)sum;
                }
            }
        }
    }
    free(p);
}

void ref_concat(float *dst, const float *a, const float *b, int64_t rows, int64_t a_count,
                int64_t b_count)
{
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t i = 0; i < a_count; i++)
            *dst++ = a[row * a_count + i];
        for (int64_t i = 0; i < b_count; i++)
            *dst++ = b[row * b_count + i];
    }
}

void ref_upsample_nearest_2x(float *dst, const float *src, int64_t n, int64_t h, int64_t w,
                             int64_t c)
{
    for (int64_t place = 0; place < n * 4 * h * w * c; place++) {
        int64_t channel = place % c, x = place / c % (2 * w), y = place / c / (2 * w) % (2 * h);
        int64_t sample = place / c / (2 * w) / (2 * h);
        dst[place] = src[((sample * h + y / 2) * w + x / 2) * c + channel];
    }
}

void ref_avg_pool_2x(float *dst, const float *src, int64_t n, int64_t h, int64_t w, int64_t c)
{
    int64_t oh = h / 2, ow = w / 2;
    for (int64_t place = 0; place < n * oh * ow * c; place++) {
        int64_t channel = place % c, x = place / c % ow, y = place / c / ow % oh;
        int64_t sample = place / c / ow / oh;
        double sum = 0;
        for (int64_t i = 0; i < 4; i++)
            sum += (double)src[((sample * h + 2 * y + i / 2) * w + 2 * x + i % 2) * c + channel];
        dst[place] = (float)(sum / 4);
    }
}

void ref_timestep_embedding(float *dst, const float *timesteps, int64_t n, int64_t channels,
                            bool flip_sin_to_cos, double freq_shift)
{
    int64_t half = channels / 2;
    for (int64_t row = 0; row < n; row++) {
        for (int64_t i = 0; i < channels; i++) {
            double exponent = -log(10000) * (double)(i % half) / ((double)half - freq_shift);
            double angle = (double)timesteps[row] * exp(exponent);
            bool sine = (i < half) != flip_sin_to_cos;
            dst[row * channels + i] = (float)(i >= 2 * half ? 0 : sine ? sin(angle) : cos(angle));
        }
    }
}

struct ref_distance ref_compare(const float *result, const float *expected, int64_t count)
{
    double error = 0, power = 0, worst = 0, largest = 0;
    for (int64_t i = 0; i < count; i++) {
        double difference = (double)result[i] - (double)expected[i];
        error += difference * difference;
        power += (double)expected[i] * (double)expected[i];
        /* written so that a NaN counts as infinitely far */
        worst = fabs(difference) <= worst ? worst : fabs(difference);
        largest = fmax(largest, fabs((double)expected[i]));
    }
    if (isnan(error))
        return (struct ref_distance){INFINITY, INFINITY};
    return (struct ref_distance){power > 0 ? error / power : error,
                                 largest > 0 ? worst / largest : worst};
}
