/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BPE with a heap: the symbols of a word are a linked list in an array, and every adjacent pair
 * that has a merge waits in a heap, lowest rank first and then leftmost. A merge that was made
 * impossible meanwhile is noticed when its turn comes.
 */
#include "stages/tokenizer_bpe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/memory.h"
#include "stages/tokenizer.h"

#define BYTE_TOKEN_MAX 8 /* "</w>" after a character of at most two bytes, and the NUL */

struct merge {
    uint64_t pair; /* left id << 32 | right id */
    int32_t rank;
    int32_t id; /* what the two become; -1: a free slot */
};

struct bpe {
    int32_t inner[256], last[256]; /* id of each byte inside and at the end of a word */
    struct merge *merges;          /* open addressing, mask + 1 slots */
    size_t mask;
};

struct bpe_symbol {
    int32_t id;         /* -1: merged into an earlier one */
    int32_t prev, next; /* -1: none */
};

struct bpe_merge {
    int32_t rank, at, id;
};

/* --- the table of merges --- */

static struct merge *slot(const struct bpe *bpe, uint64_t pair)
{
    uint64_t hash = pair * 0x9e3779b97f4a7c15u;
    size_t at = (size_t)(hash ^ hash >> 32) & bpe->mask;
    while (bpe->merges[at].id >= 0 && bpe->merges[at].pair != pair)
        at = (at + 1) & bpe->mask;
    return &bpe->merges[at];
}

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static void make_table(struct bpe *bpe, size_t merges)
{
    size_t slots = 16;
    while (slots < 2 * merges)
        slots *= 2;
    bpe->mask = slots - 1;
    bpe->merges = xmalloc(slots * sizeof *bpe->merges);
    for (size_t i = 0; i < slots; i++)
        bpe->merges[i].id = -1;
}

/* --- vocab.json --- */

static int32_t find(const json_t *vocab, const char *token, size_t size)
{
    const json_t *id = json_object_getn(vocab, token, size);
    return id ? (int32_t)json_integer_value(id) : -1;
}

/* The character that stands for a byte: itself where Latin-1 prints it, else U+0100 and on. */
static int byte_character(int byte)
{
    static const int gaps[][2] = {{0, 0x21}, {0x7f, 0xa1}, {0xad, 0xae}};
    int before = 0;
    for (size_t i = 0; i < sizeof gaps / sizeof *gaps; i++) {
        if (byte >= gaps[i][0] && byte < gaps[i][1])
            return 0x100 + before + byte - gaps[i][0];
        before += gaps[i][1] - gaps[i][0];
    }
    return byte;
}

static void find_bytes(struct bpe *bpe, const json_t *vocab, int32_t unknown)
{
    for (int byte = 0; byte < 256; byte++) {
        char token[BYTE_TOKEN_MAX];
        int c = byte_character(byte), size = 0;
        if (c >= 0x80)
            token[size++] = (char)(0xc0 | c >> 6);
        token[size++] = (char)(c >= 0x80 ? 0x80 | (c & 0x3f) : c);
        memcpy(token + size, "</w>", 4);
        bpe->inner[byte] = find(vocab, token, (size_t)size);
        bpe->last[byte] = find(vocab, token, (size_t)size + 4);
        if (bpe->inner[byte] < 0)
            bpe->inner[byte] = unknown;
        if (bpe->last[byte] < 0)
            bpe->last[byte] = unknown;
    }
}

/* --- merges.txt --- */

struct lines {
    const char *path;
    const char *at, *end;
    size_t number; /* of the line read last, from 1 */
};

struct span {
    const char *at;
    size_t size;
};

static bool blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
}

/* Lines end in \n, \r\n or \r. False at the end. */
static bool next_line(struct lines *lines, struct span *line)
{
    if (lines->at == lines->end)
        return false;
    const char *stop = lines->at;
    while (stop < lines->end && *stop != '\n' && *stop != '\r')
        stop++;
    *line = (struct span){lines->at, (size_t)(stop - lines->at)};
    if (stop < lines->end)
        stop += 1 + (*stop == '\r' && stop + 1 < lines->end && stop[1] == '\n');
    lines->at = stop;
    lines->number++;
    return true;
}

static struct span next_word(struct span *line)
{
    while (line->size > 0 && blank(*line->at)) {
        line->at++;
        line->size--;
    }
    struct span word = {line->at, 0};
    while (word.size < line->size && !blank(word.at[word.size]))
        word.size++;
    line->at += word.size;
    line->size -= word.size;
    return word;
}

static int bad_line(const struct lines *lines, const char *what, struct span subject,
                    struct err *err)
{
    int shown = subject.size < 80 ? (int)subject.size : 80;
    return err_set(err, ERR_INVALID_MODEL, "%s: line %zu %s: '%.*s'", lines->path, lines->number,
                   what, shown, subject.at);
}

/* One line, "left right", becomes the merge of that rank. A pair's first rank counts. */
static int add_merge(struct bpe *bpe, const json_t *vocab, const struct lines *lines,
                     struct span line, int32_t rank, struct err *err)
{
    struct span rest = line, left = next_word(&rest), right = next_word(&rest);
    if (left.size == 0)
        return 0;
    if (right.size == 0 || next_word(&rest).size > 0)
        return bad_line(lines, "is not two tokens", line, err);
    struct span joined = {left.at, left.size + right.size};
    char *text = xmalloc(joined.size);
    memcpy(text, left.at, left.size);
    memcpy(text + left.size, right.at, right.size);
    int32_t left_id = find(vocab, left.at, left.size), right_id = find(vocab, right.at, right.size);
    int32_t id = find(vocab, text, joined.size);
    free(text);
    if (left_id < 0 || right_id < 0 || id < 0)
        return bad_line(lines, "has a token that is not in vocab.json", line, err);
    struct merge *merge = slot(bpe, pair_of(left_id, right_id));
    if (merge->id < 0)
        *merge = (struct merge){pair_of(left_id, right_id), rank, id};
    return 0;
}

/* At most what can be merges. */
static size_t count_lines(struct lines lines)
{
    struct span line;
    while (lines.number < BPE_MERGES_MAX && next_line(&lines, &line))
        continue;
    return lines.number;
}

static int read_merges(struct bpe *bpe, const json_t *vocab, struct lines lines, struct err *err)
{
    struct span line;
    while (lines.at < lines.end && blank(*lines.at)) /* as Python's strip() of the whole text */
        lines.number += *lines.at++ == '\n';
    if (!next_line(&lines, &line)) /* the version, whatever it says */
        return err_set(err, ERR_INVALID_MODEL, "%s is empty", lines.path);
    for (int32_t rank = 0; rank < BPE_MERGES_MAX && next_line(&lines, &line); rank++) {
        int result = add_merge(bpe, vocab, &lines, line, rank, err);
        if (result != 0)
            return result;
    }
    return 0;
}

/* *bytes is owned. */
static int read_file(const char *path, char **bytes, size_t *size, struct err *err)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_set(err, ERR_IO, "cannot open '%s': %s", path, strerror(errno));
    int result = 0;
    *bytes = NULL;
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        result = err_set(err, ERR_IO, "'%s' is not a regular file", path);
    } else if (status.st_size > (off_t)TOKENIZER_FILE_MAX) {
        result = err_set(err, ERR_INVALID_MODEL, "'%s' has %lld bytes, at most %u are allowed",
                         path, (long long)status.st_size, TOKENIZER_FILE_MAX);
    } else {
        *size = (size_t)status.st_size;
        *bytes = xmalloc(*size + 1);
        ssize_t got = 0;
        for (size_t done = 0; done < *size; done += (size_t)got)
            if ((got = read(fd, *bytes + done, *size - done)) <= 0) {
                result = err_set(err, ERR_IO, "cannot read '%s': %s", path, strerror(errno));
                break;
            }
    }
    close(fd);
    return result;
}

int bpe_load(struct bpe **out, const json_t *vocab, int32_t unknown, const char *merges_path,
             struct err *err)
{
    char *bytes = NULL;
    size_t size = 0;
    struct bpe *bpe = xcalloc(1, sizeof *bpe);
    find_bytes(bpe, vocab, unknown);
    int result = read_file(merges_path, &bytes, &size, err);
    if (result == 0) {
        struct lines lines = {merges_path, bytes, bytes + size, 0};
        make_table(bpe, count_lines(lines));
        result = read_merges(bpe, vocab, lines, err);
    }
    free(bytes);
    if (result != 0) {
        bpe_free(bpe);
        return result;
    }
    *out = bpe;
    return 0;
}

void bpe_free(struct bpe *bpe)
{
    if (!bpe)
        return;
    free(bpe->merges);
    free(bpe);
}

/* --- encoding --- */

void token_sink_put(struct token_sink *sink, int32_t id)
{
    if (sink->count >= sink->skip && sink->count - sink->skip < sink->room)
        sink->ids[sink->count - sink->skip] = id;
    sink->count++;
}

void bpe_scratch_release(struct bpe_scratch *scratch)
{
    free(scratch->symbols);
    free(scratch->heap);
    *scratch = (struct bpe_scratch){0};
}

/* A merge takes one entry off the heap and adds at most two: 2 n bounds a word of n bytes. */
static int scratch_reserve(struct bpe_scratch *scratch, size_t size, struct err *err)
{
    if (size <= scratch->capacity)
        return 0;
    size_t capacity = size < 256 ? 256 : size;
    bpe_scratch_release(scratch);
    scratch->symbols = malloc(capacity * sizeof *scratch->symbols);
    scratch->heap = malloc(2 * capacity * sizeof *scratch->heap);
    if (!scratch->symbols || !scratch->heap) {
        bpe_scratch_release(scratch);
        return err_set(err, ERR_OUT_OF_MEMORY, "no memory for a word of %zu bytes", size);
    }
    scratch->capacity = capacity;
    return 0;
}

struct heap {
    struct bpe_merge *entries;
    size_t count;
};

static bool before(const struct bpe_merge *a, const struct bpe_merge *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(struct heap *heap, struct bpe_merge merge)
{
    size_t at = heap->count++;
    while (at > 0 && before(&merge, &heap->entries[(at - 1) / 2])) {
        heap->entries[at] = heap->entries[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap->entries[at] = merge;
}

static struct bpe_merge heap_pop(struct heap *heap)
{
    struct bpe_merge top = heap->entries[0], last = heap->entries[--heap->count];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < heap->count) {
        if (child + 1 < heap->count && before(&heap->entries[child + 1], &heap->entries[child]))
            child++;
        if (!before(&heap->entries[child], &last))
            break;
        heap->entries[at] = heap->entries[child];
        at = child;
    }
    heap->entries[at] = last;
    return top;
}

/* Queues the merge of the symbols at left and right, if there is one. */
static void consider(const struct bpe *bpe, struct heap *heap, const struct bpe_symbol *symbols,
                     int32_t left, int32_t right)
{
    if (left < 0 || right < 0)
        return;
    const struct merge *merge = slot(bpe, pair_of(symbols[left].id, symbols[right].id));
    if (merge->id >= 0)
        heap_push(heap, (struct bpe_merge){merge->rank, left, merge->id});
}

/* Whether the symbols that a queued merge was meant for still stand there. */
static bool still_valid(const struct bpe *bpe, const struct bpe_symbol *symbols,
                        const struct bpe_merge *merge)
{
    const struct bpe_symbol *left = &symbols[merge->at];
    if (left->id < 0 || left->next < 0)
        return false;
    return slot(bpe, pair_of(left->id, symbols[left->next].id))->id == merge->id;
}

static void merge_all(const struct bpe *bpe, struct heap *heap, struct bpe_symbol *symbols)
{
    while (heap->count > 0) {
        struct bpe_merge merge = heap_pop(heap);
        if (!still_valid(bpe, symbols, &merge))
            continue;
        struct bpe_symbol *left = &symbols[merge.at], *right = &symbols[left->next];
        left->id = merge.id;
        right->id = -1;
        left->next = right->next;
        if (left->next >= 0)
            symbols[left->next].prev = merge.at;
        consider(bpe, heap, symbols, left->prev, merge.at);
        consider(bpe, heap, symbols, merge.at, left->next);
    }
}

int bpe_encode(const struct bpe *bpe, const char *word, size_t size, struct bpe_scratch *scratch,
               struct token_sink *sink, struct err *err)
{
    BUG_ON(size == 0 || size > BPE_WORD_MAX);
    int result = scratch_reserve(scratch, size, err);
    if (result != 0)
        return result;
    struct bpe_symbol *symbols = scratch->symbols;
    struct heap heap = {scratch->heap, 0};
    int32_t count = (int32_t)size;
    for (int32_t i = 0; i < count; i++) {
        uint8_t byte = (uint8_t)word[i];
        int32_t id = i + 1 < count ? bpe->inner[byte] : bpe->last[byte];
        symbols[i] = (struct bpe_symbol){id, i - 1, i + 1 < count ? i + 1 : -1};
    }
    for (int32_t i = 0; i + 1 < count; i++)
        consider(bpe, &heap, symbols, i, i + 1);
    merge_all(bpe, &heap, symbols);
    for (int32_t i = 0; i >= 0; i = symbols[i].next)
        token_sink_put(sink, symbols[i].id);
    return 0;
}
