/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte-level byte-pair encoding: a vocabulary and a ranked list of merges turn the bytes of one
 * word into token ids. In vocab.json a byte is written as a printable character (GPT-2's table),
 * and the last one of a word carries "</w>". Source: the BPE model of the tokenizers library, and
 * CLIPTokenizer for how merges.txt is read (its first line and all past 48,894 merges are ignored).
 */
#ifndef UNCLIP_STAGES_TOKENIZER_BPE_H
#define UNCLIP_STAGES_TOKENIZER_BPE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define BPE_MERGES_MAX (49152 - 256 - 2) /* as in CLIPTokenizer */
#define BPE_WORD_MAX   (256u << 20)      /* bytes */

struct bpe; /* opaque; read-only and shareable after loading */

/*
 * `vocab` is vocab.json's object of ids (borrowed during the call), `unknown` the id for bytes that
 * are not in it. Errors: ERR_IO, ERR_INVALID_MODEL naming the line.
 */
int bpe_load(struct bpe **out, const json_t *vocab, int32_t unknown, const char *merges_path,
             struct err *err);
void bpe_free(struct bpe *bpe);

/* Where tokens go: after the first `skip`, the next `room` are stored; all are counted. */
struct token_sink {
    int32_t *ids; /* [room], borrowed */
    size_t skip, room, count;
};
void token_sink_put(struct token_sink *sink, int32_t id);

/* Memory that is kept from word to word; {0} at first. */
struct bpe_scratch {
    struct bpe_symbol *symbols; /* [capacity] */
    struct bpe_merge *heap;     /* [2 * capacity] */
    size_t capacity;
};
void bpe_scratch_release(struct bpe_scratch *scratch);

/* Appends the tokens of one word, 1..BPE_WORD_MAX bytes, in O(n log n). Error: ERR_OUT_OF_MEMORY.
 */
int bpe_encode(const struct bpe *bpe, const char *word, size_t size, struct bpe_scratch *scratch,
               struct token_sink *sink, struct err *err);

#endif
