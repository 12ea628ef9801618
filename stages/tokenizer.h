/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CLIP's tokenizer, exactly as the reference loads it from vocab.json, merges.txt,
 * tokenizer_config.json and special_tokens_map.json: NFC, white space, lower case, CLIP's pattern
 * (PCRE2), byte-level BPE. Pads and truncates to the model's length. What the goldens hold it to
 * stands in tests/golden/README.md.
 */
#ifndef UNCLIP_STAGES_TOKENIZER_H
#define UNCLIP_STAGES_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define TOKENIZER_FILE_MAX  (16u << 20) /* bytes of vocab.json or merges.txt */
#define TOKENIZER_VOCAB_MAX 1000000
#define TOKENIZER_TEXT_MAX  (16u << 20) /* bytes of a text */

struct tokenizer; /* opaque; read-only and shareable after loading */

/* `folder` is the model's tokenizer/. Errors: ERR_IO, ERR_INVALID_MODEL, ERR_UNSUPPORTED
   (additional_special_tokens, single_word), each naming file and key. */
int tokenizer_load(struct tokenizer **out, const char *folder, struct err *err);
void tokenizer_free(struct tokenizer *tokenizer);
int tokenizer_max_length(const struct tokenizer *tokenizer); /* model_max_length */

/*
 * ids [max_length]: begin, tokens, end, padding; mask [max_length]: 1 for all but the padding.
 * Broken UTF-8 is replaced as Python's decode(errors="replace") does. *dropped is the number of
 * tokens that did not fit (0: none): those of the parts after this one. Part k is made of the
 * tokens from k * (max_length - 2) on, of a text that is read in parts; 0 of one that is cut. Takes
 * time linear in the text but for a logarithm in its longest word. Errors: ERR_OUT_OF_MEMORY,
 * ERR_TOO_LARGE.
 */
int tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t size, int part,
                     int32_t *ids, uint8_t *mask, int *dropped, struct err *err);

#endif
