/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text as code points, and what CLIP's tokenizer does to it before it looks for words. The results
 * are those of the tokenizers library's NFC, Replace("\s+", " ") and Lowercase in a row. Everything
 * here takes time linear in the text, whatever the text.
 */
#ifndef UNCLIP_STAGES_TOKENIZER_UNICODE_H
#define UNCLIP_STAGES_TOKENIZER_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

/* A growing array; {0} is an empty one. Owns `at`. */
struct codepoints {
    int32_t *at;
    size_t count, capacity;
};
void codepoints_release(struct codepoints *text);

/* White space by Unicode's property of that name, which is what \s means to the reference. */
bool unicode_is_space(int32_t c);

/*
 * Replaces what `out` holds by the code points of UTF-8 bytes. What is not UTF-8 becomes U+FFFD as
 * in Python's decode(errors="replace"): one for each longest valid beginning of a character, or for
 * each byte that begins none. Error: ERR_OUT_OF_MEMORY.
 */
int unicode_decode(struct codepoints *out, const char *bytes, size_t size, struct err *err);

/*
 * Replaces what `out` holds by the normal form of `text`: NFC, then runs of white space as one
 * space each, then lower case character by character (so no final sigma). Error: ERR_OUT_OF_MEMORY.
 */
int unicode_normalize(struct codepoints *out, const int32_t *text, size_t count, struct err *err);

/* Writes UTF-8 into `out`, which has room for 4 bytes a code point. Returns the bytes written. */
size_t unicode_encode(const int32_t *text, size_t count, char *out);

#endif
