/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stage image-encode: pictures through CLIP's image encoder (CLIPImageProcessor, then
 * CLIPVisionModelWithProjection), and what is done with their embeddings. Which of these an item
 * gets, its kind and what it has tell:
 *
 *   a finished picture      its CLIP score for the prompt, if it has one; the embedding stays in
 *                           inputs[0]
 *   embed, score            the embedding of its one input; for score, the CLIP score too
 *   variation               the embedding of its picture
 *   interpolate             the mixture of all inputs (mix.h)
 *   text-diff               the embedding of its picture turned towards the captions' difference
 *   upscale                 the source as the picture that the upsamplers get
 *   edit                    nothing: its embedding comes from the prior
 *
 * The image encoder is loaded when a picture first needs it.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/image.h"
#include "common/memory.h"
#include "stages/image_processor.h"
#include "stages/mix.h"
#include "stages/networks/clip_vision.h"
#include "stages/stage_ops.h"

#define PICTURES_A_PASS 16 /* bounds the memory of one forward pass */
#define CHANNELS        3

struct image_encode {
    struct nn *nn; /* borrowed */
    char *model_path;
    bool loaded;
    struct image_processor processor;
    struct clip_vision clip;
};

static void image_encode_close(void *state)
{
    struct image_encode *stage = state;
    if (!stage)
        return;
    if (stage->loaded)
        clip_vision_release(&stage->clip);
    free(stage->model_path);
    free(stage);
}

static int image_encode_open(void **state, const char *model_path, struct nn *nn, struct err *err)
{
    (void)err;
    struct image_encode *stage = xcalloc(1, sizeof *stage);
    stage->nn = nn;
    stage->model_path = xstrdup(model_path);
    *state = stage;
    return 0;
}

static int load(struct image_encode *stage, struct err *err)
{
    if (stage->loaded)
        return 0;
    char *processor = xasprintf("%s/feature_extractor", stage->model_path);
    char *encoder = xasprintf("%s/image_encoder", stage->model_path);
    int rc = image_processor_load(&stage->processor, processor, err);
    if (rc == 0)
        rc = clip_vision_load(&stage->clip, stage->nn, encoder, err);
    if (rc == 0 && stage->clip.config.image_size != stage->processor.crop) {
        rc = err_set(err, ERR_INVALID_MODEL,
                     "feature_extractor makes pictures of %d pixels, image_encoder takes %lld",
                     stage->processor.crop, (long long)stage->clip.config.image_size);
        clip_vision_release(&stage->clip);
    }
    stage->loaded = rc == 0;
    free(processor);
    free(encoder);
    return rc;
}

/* ---- pictures to embeddings ---- */

/* A picture that is to be embedded, and where its embedding goes. */
struct view {
    struct item *item;
    const uint8_t *pixels; /* [height][width][3] */
    int width, height;
    float **embed; /* owned by the item */
};

static int embed_pass(struct image_encode *stage, struct view *views, size_t count, struct err *err)
{
    int64_t side = stage->processor.crop, values = side * side * CHANNELS;
    int64_t d = stage->clip.config.projection_dim;
    float *row = malloc((size_t)values * sizeof *row);
    if (!row)
        return err_set(err, ERR_OUT_OF_MEMORY, "no memory for a picture of %lld pixels",
                       (long long)side);
    size_t scope = nn_enter(stage->nn);
    struct tensor pixels =
        NN_NEW(stage->nn, nn_dtype(stage->nn), (int64_t)count, side, side, CHANNELS);
    for (size_t i = 0; i < count; i++) {
        memset(row, 0, (size_t)values * sizeof *row);
        image_processor_run(&stage->processor, views[i].pixels, views[i].width, views[i].height,
                            row, &views[i].item->err);
        tensor_put(pixels, (int64_t)i * values, row, values);
    }
    struct tensor out = clip_vision_forward(stage->nn, &stage->clip, pixels); /* [count, d] */
    for (size_t i = 0; i < count; i++) {
        free(*views[i].embed);
        *views[i].embed = xmalloc((size_t)d * sizeof(float));
        tensor_get(out, (int64_t)i * d, *views[i].embed, d);
        views[i].item->embed_dim = (int)d;
    }
    nn_leave_all(stage->nn, scope);
    free(row);
    return nn_finish(stage->nn, err);
}

/* Texts of another width than the encoder's are of no use with its embeddings. */
static bool fits(const struct image_encode *stage, struct item *item)
{
    if (item->text_embed && item->embed_dim != stage->clip.config.projection_dim)
        err_set(&item->err, ERR_INVALID_RECORD,
                "the task's text has %d numbers, the image encoder makes %lld", item->embed_dim,
                (long long)stage->clip.config.projection_dim);
    return item_live(item);
}

static int embed_all(struct image_encode *stage, struct view *views, size_t count, struct err *err)
{
    size_t kept = 0;
    int rc = count ? load(stage, err) : 0;
    for (size_t i = 0; i < count && rc == 0; i++)
        if (fits(stage, views[i].item))
            views[kept++] = views[i];
    for (size_t next = 0; next < kept && rc == 0; next += PICTURES_A_PASS) {
        size_t left = kept - next;
        rc = embed_pass(stage, views + next, left < PICTURES_A_PASS ? left : PICTURES_A_PASS, err);
    }
    return rc;
}

/* ---- which pictures ---- */

/* A finished picture is at the end of its route; an upscale's is made here. */
static bool is_finished(const struct item *item)
{
    return item->image != NULL;
}

/* Makes the finished picture, in the bytes that are stored, an input. Where one process has all
   stages, the place may hold what the picture was made of. */
static void take_finished(struct item *item)
{
    struct item_input *input = &item->inputs[0];
    struct image image;
    free(input->pixels);
    free(input->embed);
    *input = (struct item_input){.weight = 1};
    item->input_count = 1;
    if (image_from_float(&image, item->image, item->image_size, &item->err) != 0)
        return;
    input->pixels = image.pixels;
    input->width = image.width;
    input->height = image.height;
}

static size_t list_views(struct item *const *items, size_t count, struct view *views)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        if (item_live(items[i]) && is_finished(items[i]))
            take_finished(items[i]);
        for (int k = 0; item_live(items[i]) && k < items[i]->input_count; k++) {
            struct item_input *input = &items[i]->inputs[k];
            if (input->pixels && !input->embed)
                views[found++] = (struct view){.item = items[i],
                                               .pixels = input->pixels,
                                               .width = input->width,
                                               .height = input->height,
                                               .embed = &input->embed};
        }
    }
    return found;
}

/* ---- what is done with them ---- */

static bool has_input(struct item *item)
{
    if (item->input_count < 1 || !item->inputs[0].embed)
        err_set(&item->err, ERR_INVALID_RECORD, "the task has no picture to encode");
    return item_live(item);
}

static bool has_text(struct item *item, int rows)
{
    if (!item->text_embed || item->text_rows < rows)
        err_set(&item->err, ERR_INVALID_RECORD, "the task has no text embedding");
    return item_live(item);
}

static void take_embed(struct item *item, float **embed)
{
    free(item->image_embed);
    item->image_embed = *embed;
    *embed = NULL;
}

static void score(struct item *item)
{
    if (!has_input(item) || !has_text(item, 1))
        return;
    item->score = 100 * mix_cosine(item->inputs[0].embed, item->text_embed, item->embed_dim);
    item->has_score = true;
}

/* Texts have the embeddings that the prior made of them, in their order. */
static void fuse(struct item *item)
{
    const float *embeds[ITEM_INPUTS_MAX];
    double weights[ITEM_INPUTS_MAX];
    int texts = 0, d = item->embed_dim;
    for (int i = 0; i < item->input_count; i++) {
        struct item_input *input = &item->inputs[i];
        embeds[i] = input->embed;
        if (input->is_text)
            embeds[i] = item->texts_embeds ? item->texts_embeds + (int64_t)texts++ * d : NULL;
        weights[i] = input->weight;
        if (!embeds[i])
            err_set(&item->err, ERR_INVALID_RECORD, "input %d of the task has no embedding", i);
    }
    float *out = xmalloc((size_t)d * sizeof *out);
    if (item_live(item))
        mix_embeds(embeds, weights, item->input_count, d, out);
    take_embed(item, &out);
}

static void turn(struct item *item)
{
    int d = item->embed_dim;
    if (!has_input(item) || !has_text(item, ITEM_ROWS + 2))
        return;
    const float *from = item->text_embed + (int64_t)ITEM_ROWS * d, *to = from + d;
    float *out = xmalloc((size_t)d * sizeof *out);
    mix_turn(item->inputs[0].embed, from, to, item->theta, d, out);
    take_embed(item, &out);
    free(item->invert_embed);
    item->invert_embed = item->inputs[0].embed;
    item->inputs[0].embed = NULL;
}

static void take_source(struct item *item)
{
    size_t values = (size_t)item->source_size * (size_t)item->source_size * CHANNELS;
    if (!item->source) {
        err_set(&item->err, ERR_INVALID_RECORD, "the task has no picture to enlarge");
        return;
    }
    float *image = xmalloc(values * sizeof *image);
    for (size_t i = 0; i < values; i++)
        image[i] = (float)item->source[i] / 127.5f - 1;
    item_take_image(item, &image, item->source_size);
}

static void finish(struct item *item)
{
    if (is_finished(item) && item->type == JOB_UPSCALE) /* it has no prompt */
        return;
    if (is_finished(item) || item->type == JOB_SCORE) {
        score(item);
        return;
    }
    switch (item->type) {
    case JOB_VARIATION:
        if (has_input(item))
            take_embed(item, &item->inputs[0].embed);
        break;
    case JOB_EMBED:
        if (item->text_count == 0 && has_input(item))
            take_embed(item, &item->inputs[0].embed);
        break;
    case JOB_INTERPOLATE:
        fuse(item);
        break;
    case JOB_TEXT_DIFF:
        turn(item);
        break;
    case JOB_UPSCALE:
        take_source(item);
        break;
    default:
        break;
    }
    if (item->text_rows > ITEM_ROWS && item->type != JOB_EMBED)
        item->text_rows = ITEM_ROWS; /* the others have been used */
}

static int image_encode_run(void *state, struct item *const *items, size_t count,
                            const struct stage_settings *settings, const struct stage_watch *watch,
                            struct err *err)
{
    (void)settings; /* nothing to set, and no steps to watch */
    (void)watch;
    struct image_encode *stage = state;
    struct view *views = xcalloc(count * ITEM_INPUTS_MAX + 1, sizeof *views);
    size_t found = list_views(items, count, views);
    int rc = embed_all(stage, views, found, err);
    free(views);
    for (size_t i = 0; i < count && rc == 0; i++) {
        if (item_live(items[i]))
            finish(items[i]);
    }
    return rc;
}

const struct stage_ops image_encode_ops = {image_encode_open, image_encode_close, image_encode_run};
