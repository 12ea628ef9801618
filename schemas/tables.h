/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contract as data: stages, topics, Redis keys and job states, each declared once. The enums,
 * names, checks, help and docs/protocol.md come from here (tests/unit/common/test_protocol.c holds
 * the document against these tables).
 */
#ifndef UNCLIP_SCHEMAS_TABLES_H
#define UNCLIP_SCHEMAS_TABLES_H

/*
 *  X(identifier, name, has denoising steps, weight of one step or pass in the progress). Weights
 * are TFLOP of one step at Karlo's sizes; upsampler-2's is the paper's network. A route has its
 * stages in this order, but for image-encode: it stands before what needs its embedding, or at the
 * end to score the finished picture.
 */
#define STAGE_TABLE(X)                                                                             \
    X(STAGE_TEXT_ENCODE, "text-encode", false, 0.02)                                               \
    X(STAGE_PRIOR, "prior", true, 0.33)                                                            \
    X(STAGE_DECODER, "decoder", true, 1.2)                                                         \
    X(STAGE_UPSAMPLER_1, "upsampler-1", true, 8.5)                                                 \
    X(STAGE_UPSAMPLER_2, "upsampler-2", true, 20)                                                  \
    X(STAGE_IMAGE_ENCODE, "image-encode", false, 0.1)

/*  X(identifier, name, A1111's name for it, meaning): how a stage walks its steps. The first is the default. */
#define SAMPLER_TABLE(X)                                                                           \
    X(SAMPLER_DDPM, "ddpm", "DDPM", "UnCLIPScheduler's own, with fresh noise in every step")       \
    X(SAMPLER_DDIM, "ddim", "DDIM", "DDIM; eta 0 adds no noise, 1 as much as ddpm")                \
    X(SAMPLER_DPM_SOLVER_PP, "dpm-solver++", "DPM++ 2M",                                           \
      "DPM-Solver++(2M): second order, no noise, fewest steps")

/*  X(identifier, name, meaning): what makes the image embedding. The first is the default, here and below. */
#define PRIOR_TABLE(X)                                                                             \
    X(PRIOR_DIFFUSION, "diffusion", "the diffusion prior")                                         \
    X(PRIOR_AUTOREGRESSIVE, "autoregressive", "the autoregressive prior, where the model has one") \
    X(PRIOR_NONE, "none", "none: the text's own embedding goes to the decoder")

/*  X(identifier, name, meaning): what a picture begins with, in the decoder and the upsamplers. */
#define START_TABLE(X)                                                                             \
    X(START_NOISE, "noise", "fresh noise")                                                         \
    X(START_INVERSION, "inversion", "the given picture, inverted to noise by DDIM")                \
    X(START_PICTURE, "picture", "the given picture under noise; the decoder alone")

/*  X(identifier, name, meaning): which pixels of an edit's mask are painted anew. */
#define MASK_TABLE(X)                                                                              \
    X(MASK_ALPHA, "alpha", "the transparent ones")                                                 \
    X(MASK_WHITE, "white", "the white ones")

/*  X(identifier, name, meaning): what is done with a prompt that the model cannot read whole. */
#define OVERFLOW_TABLE(X)                                                                          \
    X(OVERFLOW_TRUNCATE, "truncate", "its end is cut, with a notice")                              \
    X(OVERFLOW_REFUSE, "refuse", "the picture fails")                                              \
    X(OVERFLOW_SPLIT, "split", "its parts are encoded each, and their embeddings averaged")

/*  X(identifier, name, media type, whether a picture): the form of a result. */
#define FORMAT_TABLE(X)                                                                            \
    X(FORMAT_PNG, "png", "image/png", true)                                                        \
    X(FORMAT_WEBP, "webp", "image/webp", true)                                                     \
    X(FORMAT_JPEG, "jpeg", "image/jpeg", true)                                                     \
    X(FORMAT_AVIF, "avif", "image/avif", true)                                                     \
    X(FORMAT_SAFETENSORS, "safetensors", "application/octet-stream", false)                        \
    X(FORMAT_NPY, "npy", "application/octet-stream", false)

/*  X(identifier, name, meaning): kinds of job; docs/jobs.md tells of each. */
#define JOB_TABLE(X)                                                                               \
    X(JOB_TEXT_TO_IMAGE, "text-to-image", "pictures from a text")                                  \
    X(JOB_VARIATION, "variation", "other pictures like a given one")                               \
    X(JOB_INTERPOLATE, "interpolate", "pictures between, or of a mixture of, pictures and texts")  \
    X(JOB_EDIT, "edit", "a part of a picture painted anew")                                        \
    X(JOB_TEXT_DIFF, "text-diff", "a picture changed by the difference of two captions")           \
    X(JOB_UPSCALE, "upscale", "a small picture made larger")                                       \
    X(JOB_EMBED, "embed", "CLIP embeddings of pictures and texts")                                 \
    X(JOB_SCORE, "score", "how well pictures fit a text")                                          \
    X(JOB_CANCEL, "cancel", "the wish to end a job")

/*
 *  X(identifier, name, compacted, meaning). All of these have the same number of partitions, and a
 *  job's events, state and result go to the partition that its job record came from (its home).
 */
#define TOPIC_TABLE(X)                                                                             \
    X(TOPIC_JOBS, "unclip.jobs", false, "jobs and cancellations; anyone produces")                 \
    X(TOPIC_EVENTS, "unclip.events", false, "what workers report of each picture")                 \
    X(TOPIC_STATE, "unclip.state", true, "the coordinators' log of live jobs")                     \
    X(TOPIC_RESULTS, "unclip.results", true, "one final record for each job")                      \
    X(TOPIC_DEAD_LETTER, "unclip.dead-letter", false, "records that could not be served, and why")

/* Each stage has two more topics: TOPIC_TASKS_PREFIX stage, and the same with TOPIC_BULK_SUFFIX. */
#define TOPIC_TASKS_PREFIX "unclip.tasks."
#define TOPIC_BULK_SUFFIX  ".bulk"
#define GROUP_PREFIX       "unclip-" /* of their consumer groups */

/*  X(identifier, name, rank, final). Rank only rises; docs/protocol.md has the picture. */
#define JOB_STATE_TABLE(X)                                                                         \
    X(JOB_ACCEPTED, "accepted", 0, false)                                                          \
    X(JOB_QUEUED, "queued", 1, false)                                                              \
    X(JOB_RUNNING, "running", 2, false)                                                            \
    X(JOB_SUCCEEDED, "succeeded", 3, true)                                                         \
    X(JOB_FAILED, "failed", 3, true)                                                               \
    X(JOB_CANCELLED, "cancelled", 3, true)                                                         \
    X(JOB_EXPIRED, "expired", 3, true)

/*  X(from, to, when). Whatever is not here is a bug. */
#define JOB_TRANSITION_TABLE(X)                                                                    \
    X(JOB_ACCEPTED, JOB_QUEUED, "its first task is written")                                       \
    X(JOB_ACCEPTED, JOB_FAILED, "it is refused: not valid, or too many wait")                      \
    X(JOB_ACCEPTED, JOB_CANCELLED, "a cancellation came while it waited")                          \
    X(JOB_ACCEPTED, JOB_EXPIRED, "its deadline passed while it waited")                            \
    X(JOB_QUEUED, JOB_RUNNING, "a worker reported on one of its pictures")                         \
    X(JOB_QUEUED, JOB_CANCELLED, "a cancellation came")                                            \
    X(JOB_QUEUED, JOB_EXPIRED, "its deadline passed")                                              \
    X(JOB_RUNNING, JOB_SUCCEEDED, "every picture is stored or failed, and at least one is stored") \
    X(JOB_RUNNING, JOB_FAILED, "every picture failed")                                             \
    X(JOB_RUNNING, JOB_CANCELLED, "a cancellation came")                                           \
    X(JOB_RUNNING, JOB_EXPIRED, "its deadline passed")

/*  X(identifier, printf format, type, meaning) */
#define REDIS_KEY_TABLE(X)                                                                         \
    X(REDIS_KEY_JOB, "unclip:job:%s", "hash", "a job's status, by its id")                         \
    X(REDIS_KEY_JOBS, "unclip:jobs", "zset", "ids of recent jobs, scored by created_at in ms")     \
    X(REDIS_KEY_VIEW, "unclip:view", "hash",                                                       \
      "partition: up to when (ms) the statuses of ended jobs are all in Redis, and who says so")   \
    X(REDIS_KEY_QUEUE, "unclip:queue", "hash",                                                     \
      "PARTITION:CLASS:FIELD, the fields of QUEUE_FIELD_TABLE: how the lines stand, each second")  \
    X(REDIS_KEY_EMBED_TEXT, "unclip:embed:text:%s", "string",                                      \
      "a prompt's embedding and token states (safetensors), by a SHA-256 of model and text")       \
    X(REDIS_KEY_EMBED_PRIOR, "unclip:embed:prior:%s", "string",                                    \
      "a prior's image embedding (safetensors), by a SHA-256 of model, text, seed and settings")   \
    X(REDIS_KEY_EMBED_IMAGE, "unclip:embed:image:%s", "string",                                    \
      "a picture's CLIP embedding (safetensors), by a SHA-256 of model and pixels")                \
    X(REDIS_KEY_PREVIEW, "unclip:preview:%s", "string",                                            \
      "what a running picture, JOB/IMAGE, looks like so far (WebP)")                               \
    X(REDIS_KEY_STARTED, "unclip:started:%s", "string",                                            \
      "how often a task, JOB/IMAGE.STAGE, was started and its worker then died; while it runs, one " \
      "more")                                                                                      \
    X(REDIS_KEY_STAGE, "unclip:stage:%s", "hash",                                                  \
      "a stage's counters: tasks, batches, failures, cache_hits, computed, wasted, compute_ms")    \
    X(REDIS_KEY_WORKERS, "unclip:workers", "set", "slots of workers, some of them gone")           \
    X(REDIS_KEY_WORKER, "unclip:worker:%s", "hash",                                                \
      "a live worker, by its slot: stage, model, dtype, since, partitions, tasks_per_s")

/*  X(name, meaning): the fields of the hash REDIS_KEY_JOB. Workers add progress:I, one a picture.
 */
#define JOB_FIELD_TABLE(X)                                                                         \
    X("state", "one of JOB_STATE_TABLE")                                                           \
    X("type", "of the job")                                                                        \
    X("model", "of the job")                                                                       \
    X("prompt", "of the job")                                                                      \
    X("size", "pixels a side")                                                                     \
    X("seed", "picture i has seed + i")                                                            \
    X("class", "interactive or bulk")                                                              \
    X("client", "of the job; empty if none")                                                       \
    X("created_at", "ISO 8601, UTC, milliseconds")                                                 \
    X("updated_at", "the same")                                                                    \
    X("finished_at", "the same; empty until then")                                                 \
    X("stage", "where the picture that is furthest behind is")                                     \
    X("step", "how far it is there")                                                               \
    X("steps", "of how many")                                                                      \
    X("progress", "0 to 1, over all pictures and stages")                                          \
    X("images_total", "pictures asked for")                                                        \
    X("images_done", "pictures stored")                                                            \
    X("images_failed", "pictures that failed")                                                     \
    X("results", "JSON array of URIs by index, null for those not stored")                         \
    X("scores", "JSON array of CLIP scores by index, null where there is none; empty if none has one") \
    X("best", "JSON array of indices by falling score; empty if there are no scores")              \
    X("timings", "JSON object: milliseconds of computing by stage")                                \
    X("notices", "JSON array of sentences: what was cut or replaced")                              \
    X("error_code", "of the job or its first failed picture, empty if none")                       \
    X("error_message", "the same")                                                                 \
    X("attempts", "how often pictures were tried again")                                           \
    X("retry_at", "ISO 8601: when the next one is; empty when none waits for it")                  \
    X("partition", "the job's home")                                                               \
    X("queue_ticket", "accepted: the round it waits for; queued: so many were admitted before it") \
    X("work_ms", "computing left for the picture that is furthest behind; empty if not known")

/*  X(identifier, name, meaning): the fields of REDIS_KEY_QUEUE, of a partition and class. */
#define QUEUE_NO_WORKER "no_worker" /* a field without partition: stages that have none, by comma */
#define QUEUE_FIELD_TABLE(X)                                                                       \
    X(QUEUE_ROUND, "round", "the round that runs; each serves every waiting client one picture")   \
    X(QUEUE_CLIENTS, "clients", "that wait")                                                       \
    X(QUEUE_WAITING, "waiting", "pictures that wait for admission")                                \
    X(QUEUE_IN_FLIGHT, "in_flight", "pictures that are admitted and have not ended")               \
    X(QUEUE_ENDED, "ended", "pictures that were admitted and have ended")                          \
    X(QUEUE_INTERVAL_MS, "interval_ms", "between the ends of two pictures; empty if not known")

#endif
