/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network's config.json. Each network reads the keys that it honours with its class's own
 * defaults (Karlo's old files lack many), and names in a table the keys of which it can do one
 * value only, so that a file that asks for more is an error and never another picture.
 */
#ifndef UNCLIP_STAGES_NETWORKS_NETCONFIG_H
#define UNCLIP_STAGES_NETWORKS_NETCONFIG_H

#include <stdint.h>

#include "common/err.h"
#include "common/json.h"

#define NETCONFIG_WIDTH_MAX  65536    /* channels of one layer */
#define NETCONFIG_LAYERS_MAX 256      /* layers of a transformer */
#define NETCONFIG_HEADS_MAX  1024     /* attention heads */
#define NETCONFIG_LENGTH_MAX 8192     /* tokens of a sequence */
#define NETCONFIG_VOCAB_MAX  10000000 /* rows of a token embedding */
#define NETCONFIG_SIDE_MAX   8192     /* pixels a side */

#define NETCONFIG_DIFFUSERS_WEIGHTS    "diffusion_pytorch_model.safetensors"
#define NETCONFIG_TRANSFORMERS_WEIGHTS "model.safetensors"

/* Owned by the loading function; netconfig_close() frees it and accepts a zeroed one. */
struct netconfig {
    json_t *json;
    char *what; /* "decoder/config.json", for messages */
};

/* Reads folder/config.json. Errors: ERR_IO, ERR_INVALID_MODEL. */
int netconfig_open(struct netconfig *config, const char *folder, struct err *err);
void netconfig_close(struct netconfig *config);

/* A size from 1 to maximum; absent or null leaves *value. ERR_INVALID_MODEL. */
int netconfig_size(const struct netconfig *config, const char *key, int64_t maximum, int64_t *value,
                   struct err *err);
/* One size for each of `levels`: a list of so many, or one number for all. Absent leaves values. */
int netconfig_levels(const struct netconfig *config, const char *key, int levels, int64_t maximum,
                     int64_t *values, struct err *err);
/* ERR_UNSUPPORTED unless `_class_name`, where it is there, is this one. */
int netconfig_class(const struct netconfig *config, const char *class_name, struct err *err);

/*
 * A key of which only one value is supported, as JSON text. Absent or null is that value too,
 * unless it is `required`: then the class's default is another. A list must hold nothing else.
 */
struct netconfig_fixed {
    const char *key;
    const char *json;
    bool required;
};
/* Checks a table that ends with a NULL key. ERR_UNSUPPORTED naming file, key and value. */
int netconfig_check(const struct netconfig *config, const struct netconfig_fixed *table,
                    struct err *err);

/* A tensor's name: NAME("%s.conv1", prefix), valid to the end of the full expression. */
struct netconfig_name {
    char text[192];
};
struct netconfig_name netconfig_name(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define NAME(...) (netconfig_name(__VA_ARGS__).text)

#endif
