/* SPDX-License-Identifier: Apache-2.0 */
/* CLIP's preprocessing, with Pillow's resize; see image_processor.h. */
#include "stages/image_processor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/memory.h"
#include "common/model_card.h"

#define CHANNELS       3
#define FILE_NAME      "preprocessor_config.json"
#define BICUBIC        3  /* Pillow's number */
#define PRECISION_BITS 22 /* of a weight: 32 - 8 - 2 */
#define SUPPORT        2.0

/* --- the file --- */

/* Sizes come as {"shortest_edge": 224}, {"height": 224, "width": 224} or, in old files, 224. */
static int read_size(const json_t *config, const char *key, const char *member, int *size,
                     struct err *err)
{
    const json_t *value = json_object_get(config, key);
    int64_t number = 0, other = 0;
    int rc = 0;
    if (json_is_object(value)) {
        rc = jsonx_int(value, member, 1, IMAGE_PROCESSOR_SIDE_MAX, &number, FILE_NAME, err);
        other = number;
        if (!rc && json_object_get(value, "width"))
            rc = jsonx_int(value, "width", 1, IMAGE_PROCESSOR_SIDE_MAX, &other, FILE_NAME, err);
    } else {
        rc = jsonx_int(config, key, 1, IMAGE_PROCESSOR_SIDE_MAX, &number, FILE_NAME, err);
        other = number;
    }
    if (!rc && (number == 0 || other != number))
        rc = err_set(err, ERR_INVALID_MODEL, "%s: '%s' names no square", FILE_NAME, key);
    *size = (int)number;
    return rc;
}

static int read_triple(const json_t *config, const char *key, float out[CHANNELS], struct err *err)
{
    const json_t *list = json_object_get(config, key);
    for (size_t i = 0; i < CHANNELS; i++) {
        const json_t *value = json_array_get(list, i);
        out[i] = (float)json_number_value(value);
        if (!json_is_number(value) || !isfinite(out[i]))
            return err_set(err, ERR_INVALID_MODEL, "%s: '%s' is not a list of three numbers",
                           FILE_NAME, key);
    }
    return 0;
}

static int check_steps(const json_t *config, struct err *err)
{
    static const char *const steps[] = {"do_resize", "do_center_crop", "do_rescale",
                                        "do_normalize"};
    int64_t filter = BICUBIC;
    int rc = jsonx_int(config, "resample", 0, 5, &filter, FILE_NAME, err);
    for (size_t i = 0; i < sizeof steps / sizeof *steps && !rc; i++) {
        bool on = true;
        rc = jsonx_bool(config, steps[i], &on, FILE_NAME, err);
        if (!rc && !on)
            rc = err_set(err, ERR_UNSUPPORTED, "%s: '%s' is false", FILE_NAME, steps[i]);
    }
    if (!rc && filter != BICUBIC)
        rc = err_set(err, ERR_UNSUPPORTED, "%s: resample %lld is not bicubic (%d)", FILE_NAME,
                     (long long)filter, BICUBIC);
    return rc;
}

static int read_config(struct image_processor *processor, const json_t *config, struct err *err)
{
    int rc;
    processor->rescale = 1.0 / 255;
    if ((rc = check_steps(config, err)) ||
        (rc = read_size(config, "size", "shortest_edge", &processor->edge, err)) ||
        (rc = read_size(config, "crop_size", "height", &processor->crop, err)) ||
        (rc = jsonx_double(config, "rescale_factor", &processor->rescale, FILE_NAME, err)) ||
        (rc = read_triple(config, "image_mean", processor->mean, err)) ||
        (rc = read_triple(config, "image_std", processor->std, err)))
        return rc;
    for (int c = 0; c < CHANNELS; c++)
        if (processor->std[c] == 0)
            return err_set(err, ERR_INVALID_MODEL, "%s: 'image_std' has a zero", FILE_NAME);
    if (processor->crop > processor->edge)
        return err_set(err, ERR_UNSUPPORTED, "%s: crop_size %d is larger than size %d", FILE_NAME,
                       processor->crop, processor->edge);
    return 0;
}

int image_processor_load(struct image_processor *processor, const char *folder, struct err *err)
{
    json_t *config;
    char *path = xasprintf("%s/" FILE_NAME, folder);
    int rc = jsonx_read_file(&config, path, MODEL_JSON_MAX, err);
    if (!rc) {
        rc = read_config(processor, config, err);
        json_decref(config);
    }
    free(path);
    return rc;
}

/* --- Pillow's resize --- */

/* For each output position: its first input position, how many there are, and their weights. */
struct filter {
    int taps; /* room for each position */
    int *first, *count;
    int32_t *weights; /* [to][taps], 1 << PRECISION_BITS is 1 */
};

static double bicubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

static void filter_release(struct filter *filter)
{
    free(filter->first);
    free(filter->count);
    free(filter->weights);
}

/* The weights of output position i. `raw` has room for `taps`. */
static void fill_weights(struct filter *filter, int i, int from, int to, double *raw)
{
    double scale = (double)from / to, stretch = scale < 1 ? 1 : scale;
    double support = SUPPORT * stretch, centre = (i + 0.5) * scale, sum = 0;
    int low = (int)(centre - support + 0.5), high = (int)(centre + support + 0.5);
    low = low < 0 ? 0 : low;
    high = (high > from ? from : high) - low;
    for (int k = 0; k < high; k++)
        sum += raw[k] = bicubic((k + low - centre + 0.5) * (1 / stretch));
    for (int k = 0; k < high; k++) {
        double weight = (sum != 0 ? raw[k] / sum : raw[k]) * (1 << PRECISION_BITS);
        filter->weights[(size_t)i * (size_t)filter->taps + (size_t)k] =
            (int32_t)(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
    filter->first[i] = low;
    filter->count[i] = high;
}

static int filter_init(struct filter *filter, int from, int to, struct err *err)
{
    double scale = (double)from / to;
    *filter = (struct filter){.taps = (int)ceil(SUPPORT * (scale < 1 ? 1 : scale)) * 2 + 1};
    size_t n = (size_t)to, taps = (size_t)filter->taps;
    double *raw = malloc(taps * sizeof *raw);
    filter->first = malloc(n * sizeof *filter->first);
    filter->count = malloc(n * sizeof *filter->count);
    filter->weights = malloc(n * taps * sizeof *filter->weights);
    if (!raw || !filter->first || !filter->count || !filter->weights) {
        free(raw);
        filter_release(filter);
        return err_set(err, ERR_OUT_OF_MEMORY, "no memory for a resize from %d to %d", from, to);
    }
    for (int i = 0; i < to; i++)
        fill_weights(filter, i, from, to, raw);
    free(raw);
    return 0;
}

static uint8_t round_pixel(int32_t sum)
{
    sum >>= PRECISION_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* One line; pixels of a line are `step` bytes apart, in both. */
static void resize_line(const struct filter *filter, const uint8_t *src, uint8_t *dst, int to,
                        size_t step)
{
    for (int i = 0; i < to; i++) {
        const int32_t *weights = filter->weights + (size_t)i * (size_t)filter->taps;
        const uint8_t *from = src + (size_t)filter->first[i] * step;
        int32_t sum[CHANNELS] = {1 << (PRECISION_BITS - 1), 1 << (PRECISION_BITS - 1),
                                 1 << (PRECISION_BITS - 1)};
        for (int k = 0; k < filter->count[i]; k++)
            for (int c = 0; c < CHANNELS; c++)
                sum[c] += weights[k] * from[(size_t)k * step + (size_t)c];
        for (int c = 0; c < CHANNELS; c++)
            dst[(size_t)i * step + (size_t)c] = round_pixel(sum[c]);
    }
}

/* One pass: `lines` lines from `from` to `to` pixels; without a change of size it is a copy. */
struct pass {
    int from, to;
    size_t lines, line_step_in, line_step_out, step;
};

static int run_pass(const struct pass *pass, const uint8_t *src, uint8_t *dst, struct err *err)
{
    struct filter filter;
    int rc = filter_init(&filter, pass->from, pass->to, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < pass->lines; i++)
        resize_line(&filter, src + i * pass->line_step_in, dst + i * pass->line_step_out, pass->to,
                    pass->step);
    filter_release(&filter);
    return 0;
}

/* Pillow leaves out a pass that changes nothing. *out is owned. */
static int resize(const uint8_t *rgb, int width, int height, int to_width, int to_height,
                  uint8_t **out, struct err *err)
{
    size_t row = (size_t)width * CHANNELS, to_row = (size_t)to_width * CHANNELS;
    uint8_t *wide = malloc(to_row * (size_t)height);
    uint8_t *done = malloc(to_row * (size_t)to_height);
    struct pass across = {.from = width,
                          .to = to_width,
                          .lines = (size_t)height,
                          .line_step_in = row,
                          .line_step_out = to_row,
                          .step = CHANNELS};
    struct pass down = {.from = height,
                        .to = to_height,
                        .lines = (size_t)to_width,
                        .line_step_in = CHANNELS,
                        .line_step_out = CHANNELS,
                        .step = to_row};
    int rc = wide && done ? 0 : err_set(err, ERR_OUT_OF_MEMORY, "no memory for a resized picture");
    if (!rc && width == to_width)
        memcpy(wide, rgb, row * (size_t)height);
    else if (!rc)
        rc = run_pass(&across, rgb, wide, err);
    if (!rc && height == to_height)
        memcpy(done, wide, to_row * (size_t)height);
    else if (!rc)
        rc = run_pass(&down, wide, done, err);
    free(wide);
    if (rc)
        free(done);
    else
        *out = done;
    return rc;
}

/* --- the whole --- */

int image_processor_run(const struct image_processor *processor, const uint8_t *rgb, int width,
                        int height, float *out, struct err *err)
{
    int edge = processor->edge, crop = processor->crop;
    bool upright = width <= height;
    int64_t longest = (int64_t)edge * (upright ? height : width) / (upright ? width : height);
    if (longest > 8 * IMAGE_PROCESSOR_SIDE_MAX)
        return err_set(err, ERR_INVALID_IMAGE, "the picture of %dx%d pixels is too narrow", width,
                       height);
    int to_width = upright ? edge : (int)longest, to_height = upright ? (int)longest : edge;
    uint8_t *small;
    int rc = resize(rgb, width, height, to_width, to_height, &small, err);
    if (rc)
        return rc;
    size_t left = (size_t)(to_width - crop) / 2, top = (size_t)(to_height - crop) / 2;
    for (size_t y = 0; y < (size_t)crop; y++)
        for (size_t i = 0; i < (size_t)crop * CHANNELS; i++) {
            size_t at = ((top + y) * (size_t)to_width + left) * CHANNELS + i;
            float value = (float)(small[at] * processor->rescale);
            out[y * (size_t)crop * CHANNELS + i] =
                (value - processor->mean[i % CHANNELS]) / processor->std[i % CHANNELS];
        }
    free(small);
    return 0;
}
