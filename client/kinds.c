/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands that make something: one for each kind of job, and for text-to-image two, `submit`
 * and `generate`, which are old. Here are their operands, options and help; what they do is in
 * submit.c and local.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/address.h"
#include "client/making.h"
#include "common/memory.h"

/* --- operands --- */

/* "text:…" for a text, else a picture. */
static int take_input(struct addresses *addresses, struct job_input *input, const char *word,
                      struct err *err)
{
    input->weight = 1;
    if (strncmp(word, "text:", 5) != 0)
        return address_take(addresses, word, &input->image, err);
    input->text = xstrdup(word + 5);
    return 0;
}

static int take_inputs(struct addresses *addresses, const struct invocation *invocation,
                       struct request *request, struct err *err)
{
    struct sources *sources = &request->sources;
    int rc = 0;
    sources->inputs = xcalloc((size_t)invocation->count, sizeof *sources->inputs);
    for (; sources->count < invocation->count && rc == 0; sources->count++)
        rc = take_input(addresses, &sources->inputs[sources->count],
                        invocation->operands[sources->count], err);
    return rc == 0 ? request_weigh(request, err) : rc;
}

static int take_operands(struct addresses *addresses, const struct invocation *invocation,
                         struct request *request, struct err *err)
{
    char **operands = invocation->operands;
    switch (request->type) {
    case JOB_TEXT_TO_IMAGE:
        request->prompt = operands[0];
        return 0;
    case JOB_EDIT:
        request->prompt = operands[1];
        return address_take(addresses, operands[0], &request->sources.image, err);
    case JOB_INTERPOLATE:
    case JOB_EMBED:
    case JOB_SCORE:
        return take_inputs(addresses, invocation, request, err);
    default:
        return address_take(addresses, operands[0], &request->sources.image, err);
    }
}

/* Turns words into addresses: files may be read, and put into the store. */
static int take_sources(const struct invocation *invocation, struct making *making, struct err *err)
{
    struct request *request = &making->request;
    struct addresses addresses = {.config = invocation->config, .local = making->local};
    int rc = take_operands(&addresses, invocation, request, err);
    if (rc == 0 && request->image)
        rc = address_take(&addresses, request->image, &request->sources.image, err);
    if (rc == 0 && request->mask)
        rc = address_take(&addresses, request->mask, &request->sources.mask, err);
    addresses_release(&addresses);
    return rc;
}

/* --- checks --- */

/* An option that only a cluster's job, or only this process's own, can have. */
static int check_place(const struct making *making, struct err *err)
{
    const struct request *request = &making->request;
    const char *clusters = request->id           ? "id"
                           : request->task_class ? "class"
                           : request->client     ? "client"
                           : request->webhook    ? "webhook"
                           : request->deadline_s ? "deadline"
                           : making->wait        ? "wait"
                                                 : NULL;
    const char *own = making->quiet ? "quiet" : making->profile ? "profile" : NULL;
    if (making->local && clusters)
        return err_set(err, ERR_INVALID_ARGUMENT, "--%s is for a cluster's jobs, not for --local",
                       clusters);
    if (!making->local && own)
        return err_set(err, ERR_INVALID_ARGUMENT, "--%s needs --local", own);
    if (making->local || making->wait)
        return 0;
    if (making->out || making->sheet.grid || making->sheet.animation)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "%s needs --wait: the pictures are not there before the job ends",
                       making->out          ? "-o"
                       : making->sheet.grid ? "--grid"
                                            : "--animation");
    return 0;
}

static int check_given(const struct request *request, struct err *err)
{
    if (request->type == JOB_TEXT_DIFF && (!request->from || !request->to))
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "needs --from and --to: a caption of the picture, and one of the wanted "
                       "picture");
    if (request->type == JOB_SCORE && !request->prompt)
        return err_set(err, ERR_INVALID_ARGUMENT, "needs --prompt: what the pictures are to fit");
    return 0;
}

static enum exit_code run(const struct invocation *invocation)
{
    struct making *making = invocation->values;
    struct err err;
    enum exit_code code;

    making->request.type = invocation->command->type;
    if (check_place(making, &err) < 0 || check_given(&making->request, &err) < 0 ||
        sheet_check(&making->sheet, &err) < 0 || take_sources(invocation, making, &err) < 0)
        code = complain_of(invocation, &err);
    else
        code = making->local ? local_run(invocation, making) : submit_run(invocation, making);
    request_release(&making->request);
    return code;
}

/* --- scores --- */

struct ranked {
    int index;
    double score;
};

static int better_first(const void *a, const void *b)
{
    const struct ranked *left = a, *right = b;
    if (left->score != right->score)
        return left->score < right->score ? 1 : -1;
    return left->index - right->index;
}

void making_print_ranking(const struct invocation *invocation, const json_t *scores)
{
    struct ranked ranks[SOURCES_INPUTS_MAX];
    int count = 0;
    size_t i;
    const json_t *score;
    json_array_foreach (scores, i, score)
        if (json_is_number(score) && (int)i < invocation->count && count < SOURCES_INPUTS_MAX)
            ranks[count++] = (struct ranked){(int)i, json_number_value(score)};
    qsort(ranks, (size_t)count, sizeof *ranks, better_first);
    for (int k = 0; k < count; k++)
        printf("%6.2f  %s\n", ranks[k].score, invocation->operands[ranks[k].index]);
}

/* --- the table --- */

static void defaults(void *values)
{
    request_init(&((struct making *)values)->request);
}

static void local_defaults(void *values)
{
    defaults(values);
    ((struct making *)values)->local = true;
}

#define AT(member) offsetof(struct making, member)

#define PICTURES                                                                                   \
    (KIND(JOB_TEXT_TO_IMAGE) | KIND(JOB_VARIATION) | KIND(JOB_INTERPOLATE) | KIND(JOB_EDIT) |      \
     KIND(JOB_TEXT_DIFF) | KIND(JOB_UPSCALE))

static const struct option job_options[] = {
    {"id", 0, OPTION_TEXT, "ID", 0, 0, "a new one", AT(request.id),
     "the job's id; sending a job again under its id does nothing"},
    {"class", 0, OPTION_TEXT, "CLASS", 0, 0, "interactive", AT(request.task_class),
     "interactive, or bulk: yields to people who wait"},
    {"deadline", 0, OPTION_INTEGER, "SECONDS", 1, 31536000, "none", AT(request.deadline_s),
     "the job expires if it has not ended by then"},
    {"client", 0, OPTION_TEXT, "NAME", 0, 0, NULL, AT(request.client), "who asks"},
    {"webhook", 0, OPTION_TEXT, "URL", 0, 0, NULL, AT(request.webhook),
     "a server that is sent the final record (unclip-webhooks)"},
    {0},
};

static const struct option queue_options[] = {
    {"wait", 'w', OPTION_FLAG, NULL, 0, 0, NULL, AT(wait), "show progress until the job ends"},
    {"out", 'o', OPTION_TEXT, "DIR", 0, 0, NULL, AT(out),
     "copy the pictures to DIR/ID-0.png, …; needs --wait", PICTURES},
    {"out", 'o', OPTION_TEXT, "DIR", 0, 0, NULL, AT(out),
     "copy the embeddings to DIR/ID-0.safetensors, …; needs --wait", KIND(JOB_EMBED)},
    {"json", 0, OPTION_FLAG, NULL, 0, 0, NULL, AT(json),
     "print {\"id\": …}, or with --wait the last status"},
    {0},
};

static const struct option local_options[] = {
    {"out", 'o', OPTION_TEXT, "DIR", 0, 0, "out", AT(out), "write the pictures to DIR/0.png, …"},
    {"json", 0, OPTION_FLAG, NULL, 0, 0, NULL, AT(json),
     "print request, pictures and milliseconds of each stage as JSON"},
    {"quiet", 'q', OPTION_FLAG, NULL, 0, 0, NULL, AT(quiet), "show no progress"},
    {"profile", 0, OPTION_FLAG, NULL, 0, 0, NULL, AT(profile),
     "print where the time went, by op and shape, on stderr"},
    {0},
};

static const struct option here_options[] = {
    {"local", 0, OPTION_FLAG, NULL, 0, 0, NULL, AT(local),
     "work in this process, without servers; -o is \"out\" then, and has 0.png, …"},
    {"quiet", 'q', OPTION_FLAG, NULL, 0, 0, NULL, AT(quiet), "with --local: show no progress"},
    {"profile", 0, OPTION_FLAG, NULL, 0, 0, NULL, AT(profile),
     "with --local: print where the time went, by op and shape, on stderr"},
    {0},
};

static const struct option sheet_options[] = {
    {"grid", 0, OPTION_TEXT, "FILE", 0, 0, NULL, AT(sheet.grid),
     "all pictures on one contact sheet; FILE's ending is its format", PICTURES},
    {"columns", 0, OPTION_INTEGER, "N", 1, JOB_IMAGES_MAX, "about a square", AT(sheet.columns),
     "of --grid", PICTURES},
    {"animation", 0, OPTION_TEXT, "FILE.webp", 0, 0, NULL, AT(sheet.animation),
     "all pictures one after the other, as an animated WebP", PICTURES},
    {"frame-ms", 0, OPTION_INTEGER, "MS", 1, 60000, "150", AT(sheet.frame_ms),
     "of --animation: how long each is shown", PICTURES},
    {0},
};

#define MAKING_GROUPS                                                                              \
    {"What it is made from", source_options}, {"The results", picture_options},                    \
        {"How they are made", sampling_options},                                                   \
    {                                                                                              \
        "Other samplers; faster, but not the same pictures (docs/jobs.md)", sampler_options        \
    }

static const struct option_group submit_groups[] = {
    MAKING_GROUPS,
    {"The job", job_options},
    {"Output", queue_options},
    {"All pictures in one file; with --wait", sheet_options},
    {0},
};
static const struct option_group generate_groups[] = {
    MAKING_GROUPS,
    {"Output", local_options},
    {"All pictures in one file", sheet_options},
    {0},
};
static const struct option_group groups[] = {
    MAKING_GROUPS,
    {"The job", job_options},
    {"Output", queue_options},
    {"All pictures in one file; with --wait or --local", sheet_options},
    {"Without a cluster", here_options},
    {0},
};

const struct command submit_command = {
    .name = "submit",
    .operands = "PROMPT",
    .least = 1,
    .most = 1,
    .summary = "send a job to the cluster, print its id",
    .details =
        "A size that the model does not make is refused at once where the model is found under "
        "--models,\nelse by the cluster: then the job fails.\n",
    .examples = "  unclip submit \"a red heart\" --n 4 --seed 7 --size 256 --wait -o out\n"
                "  unclip submit \"a red heart\" --best-of 8 --n 2 --wait --grid best.png\n",
    .groups = submit_groups,
    .values_size = sizeof(struct making),
    .defaults = defaults,
    .settings = {"model", "models", "kafka", "redis"},
    .run = run,
};

const struct command generate_command = {
    .name = "generate",
    .operands = "PROMPT",
    .least = 1,
    .most = 1,
    .summary = "make pictures in this process, without servers",
    .details = "--model takes a name under --models, or the path of a model directory.\n",
    .examples = "  unclip generate \"a red heart\" --model models/emoji --seed 42 -o out\n"
                "  unclip generate \"a red heart\" --prior none --size 64\n",
    .groups = generate_groups,
    .values_size = sizeof(struct making),
    .defaults = local_defaults,
    .settings = {"model", "models", "dtype", "threads"},
    .run = run,
};

#define PICTURE_WORDS                                                                              \
    "A picture is a file of this computer, an http(s) or data URL, or the URI of a stored one.\n"

#define KIND_COMMAND                                                                               \
    .groups = groups, .values_size = sizeof(struct making), .defaults = defaults, .run = run,      \
    .settings = {"model", "models", "artifacts", "kafka", "redis", "fetch", "dtype", "threads"}

const struct command variation_command = {
    .name = "variation",
    .type = JOB_VARIATION,
    .operands = "PICTURE",
    .least = 1,
    .most = 1,
    .summary = "make other pictures like a given one",
    .details = PICTURE_WORDS,
    .examples = "  unclip variation cat.png --n 4 --wait -o out\n"
                "  unclip variation cat.png --start inversion --sampler-decoder ddim \\\n"
                "      --eta-decoder 0.5 --size 64 --local --model models/emoji\n",
    KIND_COMMAND,
};

const struct command interpolate_command = {
    .name = "interpolate",
    .type = JOB_INTERPOLATE,
    .operands = "A B …",
    .least = 2,
    .most = TASK_INPUTS_MAX,
    .summary = "make pictures of a mixture, or frames from one to the other",
    .details = "Inputs are pictures, or texts as text:WORDS; up to 8, and with --frames "
               "two.\n" PICTURE_WORDS,
    .examples =
        "  unclip interpolate cat.png dog.png --frames 9 --wait --animation both.webp\n"
        "  unclip interpolate cat.png \"text:a red heart\" --weight 1,2 --n 4 --wait -o out\n"
        "  unclip interpolate a.png b.png --image a.png --start picture --strength 0.6 "
        "--local --model models/emoji\n",
    KIND_COMMAND,
};

const struct command edit_command = {
    .name = "edit",
    .type = JOB_EDIT,
    .operands = "PICTURE PROMPT",
    .least = 2,
    .most = 2,
    .summary = "paint a part of a picture anew",
    .details = "Without --mask, the picture's transparent part is painted. All else stays as it "
               "is.\n" PICTURE_WORDS,
    .examples =
        "  unclip edit cat.png \"a cat with a hat\" --mask mask.png --mask-mode white "
        "--wait -o out\n"
        "  unclip edit cutout.png \"a red heart\" --feather 4 --local --model models/emoji\n",
    KIND_COMMAND,
};

const struct command text_diff_command = {
    .name = "text-diff",
    .type = JOB_TEXT_DIFF,
    .operands = "PICTURE",
    .least = 1,
    .most = 1,
    .summary = "change a picture by the difference of two captions",
    .details = PICTURE_WORDS,
    .examples = "  unclip text-diff heart.png --from \"a red heart\" --to \"a blue heart\" "
                "--theta 0.6 \\\n"
                "      --wait -o out\n"
                "  unclip text-diff heart.png --from \"a red heart\" --to \"a blue heart\" "
                "--frames 7 \\\n      --local --model models/emoji --grid steps.png\n",
    KIND_COMMAND,
};

const struct command upscale_command = {
    .name = "upscale",
    .type = JOB_UPSCALE,
    .operands = "PICTURE",
    .least = 1,
    .most = 1,
    .summary = "make a small picture larger",
    .details = PICTURE_WORDS,
    .examples = "  unclip upscale small.png --from 64 --size 1024 --wait -o out\n"
                "  unclip upscale small.png --size 256 --local --model models/emoji\n",
    KIND_COMMAND,
};

const struct command embed_command = {
    .name = "embed",
    .type = JOB_EMBED,
    .operands = "INPUT…",
    .least = 1,
    .most = SOURCES_INPUTS_MAX,
    .summary = "make CLIP embeddings of pictures and texts",
    .details = "Inputs are pictures, or texts as text:WORDS. One file of numbers for "
               "each.\n" PICTURE_WORDS,
    .examples = "  unclip embed cat.png \"text:a cat\" --wait -o out\n"
                "  unclip embed *.png --format npy --local --model models/emoji -o out\n",
    KIND_COMMAND,
};

const struct command score_command = {
    .name = "score",
    .type = JOB_SCORE,
    .operands = "PICTURE…",
    .least = 1,
    .most = SOURCES_INPUTS_MAX,
    .summary = "rank pictures by how well they fit a text",
    .details = "Prints 100 times the cosine of the CLIP embeddings, the best picture "
               "first.\n" PICTURE_WORDS,
    .examples = "  unclip score *.png --prompt \"a red heart\" --wait\n"
                "  unclip score *.png --prompt \"a red heart\" --local --model models/emoji\n",
    KIND_COMMAND,
};
