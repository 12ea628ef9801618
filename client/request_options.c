/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be asked of a job, as options, with the kinds of job that have each. Bounds are the
 * schemas'; those in the tables only make better messages. A unit test holds the kinds against the
 * schemas.
 */
#include "client/request.h"

#define AT(member) offsetof(struct request, member)

#define TEXT   KIND(JOB_TEXT_TO_IMAGE)
#define OTHERS KIND(JOB_VARIATION)
#define MIX    KIND(JOB_INTERPOLATE)
#define EDIT   KIND(JOB_EDIT)
#define DIFF   KIND(JOB_TEXT_DIFF)
#define LARGER KIND(JOB_UPSCALE)
#define EMBED  KIND(JOB_EMBED)
#define SCORE  KIND(JOB_SCORE)

#define PRIOR   (TEXT | MIX | EDIT)                 /* a prior makes its embedding */
#define DECODED (TEXT | OTHERS | MIX | EDIT | DIFF) /* the decoder makes its pictures */
#define MADE    (DECODED | LARGER)                  /* there are pictures to be made */
#define BEGUN   (OTHERS | MIX | DIFF)               /* may begin with a given picture */
#define READ    (DECODED | EMBED | SCORE)           /* a text may be too long */

const struct option source_options[] = {
    {"prompt", 'p', OPTION_TEXT, "TEXT", 0, 0, NULL, AT(prompt),
     "a text that the decoder reads beside the embedding: a style, a subject", OTHERS | MIX | DIFF},
    {"prompt", 'p', OPTION_TEXT, "TEXT", 0, 0, NULL, AT(prompt), "what the pictures are to fit",
     SCORE},
    {"weight", 0, OPTION_TEXT, "W,W,…", 0, 0, "all alike", AT(weights),
     "weights of the inputs, in their order", MIX},
    {"image", 0, OPTION_TEXT, "PICTURE", 0, 0, NULL, AT(image),
     "a picture to begin with, for --start", MIX},
    {"mask", 'm', OPTION_TEXT, "PICTURE", 0, 0, "the picture's own transparency", AT(mask),
     "where to paint anew", EDIT},
    {"mask-mode", 0, OPTION_TEXT, "alpha|white", 0, 0, "alpha", AT(mask_mode),
     "what marks that place: transparent pixels, or white ones", EDIT},
    {"feather", 0, OPTION_INTEGER, "PIXELS", 0, 256, "0", AT(feather),
     "width over which the mask's edge fades", EDIT},
    {"from", 0, OPTION_TEXT, "TEXT", 0, 0, NULL, AT(from), "a caption of the picture", DIFF},
    {"to", 0, OPTION_TEXT, "TEXT", 0, 0, NULL, AT(to), "a caption of the wanted one", DIFF},
    {"theta", 0, OPTION_NUMBER, "X", 0, 1, "0.5", AT(theta),
     "how far to go towards the captions' difference: 0 to 1", DIFF},
    {"from", 0, OPTION_INTEGER, "PIXELS", 1, 8192, "the size below --size", AT(from_size),
     "size that the picture is brought to first", LARGER},
    {0},
};

const struct option picture_options[] = {
    {"n", 'n', OPTION_INTEGER, "N", 1, JOB_IMAGES_MAX, "1", AT(n), "pictures", MADE},
    {"frames", 0, OPTION_INTEGER, "N", 2, JOB_IMAGES_MAX, NULL, AT(frames),
     "instead of -n: so many steps from the first input to the second", MIX},
    {"frames", 0, OPTION_INTEGER, "N", 2, JOB_IMAGES_MAX, NULL, AT(frames),
     "instead of -n: so many steps from 0 to theta", DIFF},
    {"noise", 0, OPTION_TEXT, "fixed|interpolated", 0, 0, "fixed", AT(noise),
     "of --frames: the seed's for all, or on the way to the next's", MIX},
    {"noise-place", 0, OPTION_NUMBER, "X", 0, 1, "0", AT(noise_place),
     "how far the noise is from the seed's to the next seed's: 0 to 1", MIX},
    {"size", 's', OPTION_INTEGER, "PIXELS", 1, 8192, "the model's largest", AT(size),
     "what the model makes: 64, 256 or 1024", MADE},
    {"stop-at", 0, OPTION_INTEGER, "PIXELS", 1, 8192, NULL, AT(stop_at),
     "a cheap draft: leave the picture at this size", TEXT},
    {"seed", 0, OPTION_INTEGER, "N", 0, (double)JOB_SEED_MAX, "random", AT(seed),
     "of the first picture; picture I has N + I, frames all have N", MADE},
    {"negative-prompt", 0, OPTION_TEXT, "TEXT", 0, 0, NULL, AT(negative_prompt),
     "what the pictures should not show", DECODED},
    {"overflow", 0, OPTION_TEXT, "HOW", 0, 0, "truncate", AT(overflow),
     "of texts that are too long: truncate, refuse or split", READ},
    {"score", 0, OPTION_FLAG, NULL, 0, 0, NULL, AT(score),
     "give each picture its CLIP score for the prompt", DECODED},
    {"best-of", 0, OPTION_INTEGER, "N", 1, JOB_IMAGES_MAX, NULL, AT(best_of),
     "make N, keep the -n with the best CLIP scores", TEXT},
    {"format", 0, OPTION_TEXT, "FORMAT", 0, 0, "png", AT(format), "png, webp, jpeg or avif", MADE},
    {"format", 0, OPTION_TEXT, "FORMAT", 0, 0, "safetensors", AT(format), "safetensors or npy",
     EMBED},
    {"quality", 0, OPTION_INTEGER, "N", 1, 100, "the format's", AT(quality),
     "of webp, jpeg and avif; 100 is lossless in webp", MADE},
    {"preview", 0, OPTION_INTEGER, "K", 0, 1000, "0", AT(preview),
     "a small picture of what is being made, every K steps; 0: none", MADE},
    {0},
};

#define STEPS(name, stage, kinds)                                                                  \
    {                                                                                              \
        "steps-" name, 0, OPTION_INTEGER, "N", 1, JOB_STEPS_MAX, "the model's", AT(steps[stage]),  \
            "denoising steps of " name, kinds                                                      \
    }
#define GUIDANCE(name, stage, kinds)                                                               \
    {                                                                                              \
        "guidance-" name, 0, OPTION_NUMBER, "X", 0, 100, "the model's", AT(guidance[stage]),       \
            "guidance scale of " name "; 1 or less: none", kinds                                   \
    }
#define SAMPLER(name, stage, kinds)                                                                \
    {                                                                                              \
        "sampler-" name, 0, OPTION_TEXT, "NAME", 0, 0, "ddpm", AT(sampler[stage]),                 \
            "sampler of " name ": ddpm, ddim or dpm-solver++", kinds                               \
    }
#define ETA(name, stage, kinds)                                                                    \
    {                                                                                              \
        "eta-" name, 0, OPTION_NUMBER, "X", 0, 1, "0", AT(eta[stage]),                             \
            "noise in the steps of ddim in " name, kinds                                           \
    }
#define REUSE(name, stage, kinds)                                                                  \
    {                                                                                              \
        "reuse-" name, 0, OPTION_INTEGER, "K", 1, 100, "1", AT(reuse[stage]),                      \
            "compute the deep part of " name " in every K-th step", kinds                          \
    }
#define THRESHOLD(name, stage, kinds)                                                              \
    {                                                                                              \
        "threshold-" name, 0, OPTION_NUMBER, "X", 0, 1, "0", AT(threshold[stage]),                 \
            "dynamic thresholding in " name ": 0.995; 0: none", kinds                              \
    }

const struct option sampling_options[] = {
    {"prior", 0, OPTION_TEXT, "KIND", 0, 0, "diffusion", AT(prior),
     "what makes the embedding: diffusion, autoregressive or none", PRIOR},
    {"prior-candidates", 0, OPTION_INTEGER, "K", 1, 16, "1", AT(candidates),
     "embeddings to make, of which the one nearest to the text is taken", PRIOR},
    {"start", 0, OPTION_TEXT, "FROM", 0, 0, "noise", AT(start),
     "what it begins with: noise, inversion or picture", OTHERS | MIX},
    {"start", 0, OPTION_TEXT, "FROM", 0, 0, "inversion", AT(start),
     "what it begins with: noise, inversion or picture", DIFF},
    {"strength", 0, OPTION_NUMBER, "X", 0, 1, "0.7", AT(strength),
     "of --start picture: how much noise is on it, 0 to 1", BEGUN},
    {"resample", 0, OPTION_INTEGER, "K", 0, 20, "2", AT(resample),
     "repeat each of the decoder's steps K times, to join old and new", EDIT},
    STEPS("prior", STAGE_PRIOR, PRIOR),
    STEPS("decoder", STAGE_DECODER, DECODED),
    STEPS("upsampler-1", STAGE_UPSAMPLER_1, MADE),
    STEPS("upsampler-2", STAGE_UPSAMPLER_2, MADE),
    GUIDANCE("prior", STAGE_PRIOR, PRIOR),
    GUIDANCE("decoder", STAGE_DECODER, DECODED),
    THRESHOLD("decoder", STAGE_DECODER, DECODED),
    THRESHOLD("upsampler-1", STAGE_UPSAMPLER_1, MADE),
    THRESHOLD("upsampler-2", STAGE_UPSAMPLER_2, MADE),
    {0},
};

const struct option sampler_options[] = {
    SAMPLER("prior", STAGE_PRIOR, PRIOR),
    SAMPLER("decoder", STAGE_DECODER, DECODED),
    SAMPLER("upsampler-1", STAGE_UPSAMPLER_1, MADE),
    SAMPLER("upsampler-2", STAGE_UPSAMPLER_2, MADE),
    ETA("prior", STAGE_PRIOR, PRIOR),
    ETA("decoder", STAGE_DECODER, DECODED),
    ETA("upsampler-1", STAGE_UPSAMPLER_1, MADE),
    ETA("upsampler-2", STAGE_UPSAMPLER_2, MADE),
    REUSE("decoder", STAGE_DECODER, DECODED),
    REUSE("upsampler-1", STAGE_UPSAMPLER_1, MADE),
    REUSE("upsampler-2", STAGE_UPSAMPLER_2, MADE),
    {0},
};
