/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one function that checks a record against its JSON Schema (schemas/NAME.schema.json, embedded
 * at build time; valijson behind it). The schemas are the one definition of every JSON record.
 */
#ifndef UNCLIP_COMMON_SCHEMA_H
#define UNCLIP_COMMON_SCHEMA_H

#include <stddef.h>

#include "common/err.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SCHEMA_RECORD_MAX (900u << 10) /* bytes of JSON in one record */
#define SCHEMA_DEPTH_MAX 32            /* nesting of objects and arrays */

/*
 * `name` is the schema's, e.g. "job-text-to-image"; an unknown one is a BUG. Errors: ERR_TOO_LARGE,
 * ERR_INVALID_JSON, ERR_INVALID_JOB ("'/n' must be at most 64"; the first failure, with its JSON
 * pointer), ERR_UNSUPPORTED (a record of a higher version). Thread-safe.
 */
int schema_validate(const char *name, const char *json, size_t size, struct err *err);

#ifdef __cplusplus
}
#endif

#endif
