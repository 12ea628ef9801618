/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of what texts of jobs may not say: a file of the operator's, one entry a line, # begins
 * a comment line. An entry is words, which match as whole words in that order, or a pattern of
 * PCRE2 between slashes. Both look at the text after NFKC, case folding and the removal of
 * characters that nobody sees, so that writing a word otherwise does not help. Pure once read;
 * what it was refused for is never told, only that it was.
 */
#ifndef UNCLIP_COORDINATOR_DENY_H
#define UNCLIP_COORDINATOR_DENY_H

#include <stddef.h>

#include "common/err.h"

#define DENY_FILE_MAX     (1u << 20) /* bytes */
#define DENY_WORDS_MAX    20000
#define DENY_PATTERNS_MAX 500
#define DENY_MATCH_LIMIT  200000 /* of a pattern's steps in one text */
#define DENY_DEPTH_LIMIT  2000
#define DENY_HEAP_KIB     1024

struct deny; /* opaque */

/* Errors: ERR_IO; ERR_INVALID_ARGUMENT ("FILE:LINE: …"), also of a list without an entry. */
int deny_open(struct deny **out, const char *path, struct err *err);
void deny_free(struct deny *deny); /* NULL is fine */

enum deny_match {
    DENY_NOTHING,
    DENY_MATCHES,
    DENY_UNCHECKED /* a pattern reached its limits on this text */
};
enum deny_match deny_check(const struct deny *deny, const char *text);

#endif
