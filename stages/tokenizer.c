/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CLIP's tokenizer, as transformers' CLIPTokenizerFast makes it of the same folder. A text goes
 * through these steps, each over the pieces that the one before left:
 *
 *   1. added tokens that match the raw text ("<|endoftext|>" written in it)
 *   2. the normal form (tokenizer_unicode.h)
 *   3. added tokens that match the normal form: older files declare them so, and then
 *      "<|ENDOFTEXT|>" matches too
 *   4. CLIP's pattern, which finds the words
 *   5. byte-level BPE of each word (tokenizer_bpe.h)
 */
#include "stages/tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <limits.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "common/memory.h"
#include "stages/tokenizer_bpe.h"
#include "stages/tokenizer_unicode.h"

#define LENGTH_MAX  4096 /* tokens, model_max_length */
#define ADDED_MAX   256  /* added tokens */
#define MATCH_LIMIT 10000

/* White space is spelt out: \s has U+180E too in PCRE2. Possessive, so that nothing backtracks. */
#define SPACES                                                                                     \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"
#define PATTERN "'s|'t|'re|'ve|'m|'ll|'d|\\p{L}++|\\p{N}|[^" SPACES "\\p{L}\\p{N}]++"

struct added_token {
    struct codepoints text; /* in the normal form if `normalized` */
    bool normalized;        /* is looked for in the normal form, else in the raw text */
    int32_t id;
};

struct tokenizer {
    struct bpe *bpe;
    pcre2_code *pattern;
    pcre2_match_context *limits;
    struct added_token *added; /* [added_count] */
    size_t added_count;
    int32_t begin, end, padding;
    int max_length;
};

/* --- loading --- */

/* What is open while a folder is read. */
struct loading {
    const char *folder;
    json_t *vocab, *config, *map; /* map: special_tokens_map.json or NULL */
    char *config_path, *map_path;
};

struct token_spec {
    const char *content; /* borrowed from the JSON */
    bool normalized;
};

/*
 * A token in a configuration: a string, or an object of tokenizers' AddedToken. Its `normalized`
 * is by default the opposite of `special`.
 */
static int read_spec(const json_t *value, bool special, struct token_spec *spec, const char *key,
                     const char *path, struct err *err)
{
    bool single_word = false;
    if (json_is_string(value)) {
        spec->content = json_string_value(value);
        return 0;
    }
    if (!json_is_object(value))
        return err_set(err, ERR_INVALID_MODEL, "%s: '%s' is neither a string nor an object", path,
                       key);
    int result = jsonx_bool(value, "special", &special, path, err);
    spec->normalized = !special;
    if (result == 0)
        result = jsonx_bool(value, "normalized", &spec->normalized, path, err);
    if (result == 0)
        result = jsonx_bool(value, "single_word", &single_word, path, err);
    if (result == 0)
        result = jsonx_string(value, "content", &spec->content, path, err);
    if (result != 0)
        return result;
    if (single_word)
        return err_set(err, ERR_UNSUPPORTED, "%s: '%s' sets 'single_word'", path, key);
    return 0;
}

static int find_id(const struct loading *loading, const char *content, int32_t *id, struct err *err)
{
    const json_t *value = json_object_get(loading->vocab, content);
    if (!value)
        return err_set(err, ERR_INVALID_MODEL, "%s: '%s' is a special token but not in vocab.json",
                       loading->folder, content);
    *id = (int32_t)json_integer_value(value);
    return 0;
}

/* Adds a token unless one of that text is there: the first declaration counts. */
static int add_token(struct tokenizer *tokenizer, const struct loading *loading,
                     const struct token_spec *spec, int32_t *id, struct err *err)
{
    if (!spec->content || !*spec->content)
        return err_set(err, ERR_INVALID_MODEL, "%s: a special token is empty",
                       loading->config_path);
    int result = find_id(loading, spec->content, id, err);
    if (result != 0)
        return result;
    for (size_t i = 0; i < tokenizer->added_count; i++)
        if (tokenizer->added[i].id == *id)
            return 0;
    if (tokenizer->added_count == ADDED_MAX)
        return err_set(err, ERR_INVALID_MODEL, "%s: more than %d added tokens",
                       loading->config_path, ADDED_MAX);
    struct added_token *token = &tokenizer->added[tokenizer->added_count++];
    *token = (struct added_token){.normalized = spec->normalized, .id = *id};
    result = unicode_decode(&token->text, spec->content, strlen(spec->content), err);
    if (result != 0 || !spec->normalized)
        return result;
    struct codepoints raw = token->text;
    token->text = (struct codepoints){0};
    result = unicode_normalize(&token->text, raw.at, raw.count, err);
    codepoints_release(&raw);
    return result;
}

/* added_tokens_decoder: {"49406": {"content": …}, …}; where it stands, the map is not read. */
static int add_declared(struct tokenizer *tokenizer, const struct loading *loading,
                        const json_t *declared, struct err *err)
{
    const char *path = loading->config_path, *key;
    json_t *value;
    if (!json_is_object(declared))
        return err_set(err, ERR_INVALID_MODEL, "%s: 'added_tokens_decoder' is not an object", path);
    json_object_foreach ((json_t *)declared, key, value) {
        struct token_spec spec = {.normalized = true};
        char *end;
        int32_t id = -1;
        long number = strtol(key, &end, 10);
        if (!json_is_object(value) || *end)
            return err_set(err, ERR_INVALID_MODEL,
                           "%s: 'added_tokens_decoder' has a bad entry '%s'", path, key);
        int result = read_spec(value, false, &spec, key, path, err);
        if (result == 0)
            result = add_token(tokenizer, loading, &spec, &id, err);
        if (result != 0)
            return result;
        if (id != number)
            return err_set(err, ERR_INVALID_MODEL, "%s: '%s' is token %s, in vocab.json it is %d",
                           path, spec.content, key, id);
    }
    return 0;
}

struct role {
    const char *key, *fallback;
    bool normalized; /* of a plain string */
};

static int add_role(struct tokenizer *tokenizer, const struct loading *loading,
                    const struct role *role, int32_t *id, struct err *err)
{
    struct token_spec spec = {role->fallback, role->normalized};
    const json_t *value = json_object_get(loading->map, role->key);
    const char *path = loading->map_path;
    bool in_map = value && !json_is_null(value);
    if (!in_map) {
        value = json_object_get(loading->config, role->key);
        path = loading->config_path;
    }
    if (value && !json_is_null(value)) {
        int result = read_spec(value, in_map, &spec, role->key, path, err);
        if (result != 0)
            return result;
    }
    return add_token(tokenizer, loading, &spec, id, err);
}

/* The declared tokens first, then those with a role, in the reference's order. */
static int add_tokens(struct tokenizer *tokenizer, struct loading *loading, int32_t *unknown,
                      struct err *err)
{
    static const struct role roles[] = {
        {"bos_token", "<|startoftext|>", true},
        {"eos_token", "<|endoftext|>", true},
        {"unk_token", "<|endoftext|>", true},
        {"pad_token", "<|endoftext|>", false},
    };
    int32_t *ids[] = {&tokenizer->begin, &tokenizer->end, unknown, &tokenizer->padding};
    const json_t *declared = json_object_get(loading->config, "added_tokens_decoder");
    if (json_array_size(json_object_get(loading->config, "additional_special_tokens")) > 0 ||
        json_array_size(json_object_get(loading->map, "additional_special_tokens")) > 0)
        return err_set(err, ERR_UNSUPPORTED, "%s: 'additional_special_tokens' are not supported",
                       loading->folder);
    int result = 0;
    if (declared) {
        json_decref(loading->map);
        loading->map = NULL;
        result = add_declared(tokenizer, loading, declared, err);
    }
    for (size_t i = 0; result == 0 && i < sizeof roles / sizeof *roles; i++)
        result = add_role(tokenizer, loading, &roles[i], ids[i], err);
    return result;
}

static int read_object(json_t **out, const char *path, struct err *err)
{
    json_t *value;
    int result = jsonx_read_file(&value, path, TOKENIZER_FILE_MAX, err);
    if (result != 0)
        return result;
    if (!json_is_object(value)) {
        json_decref(value);
        return err_set(err, ERR_INVALID_MODEL, "%s is not a JSON object", path);
    }
    *out = value;
    return 0;
}

static int read_vocab(json_t **out, const char *folder, struct err *err)
{
    char *path = xasprintf("%s/vocab.json", folder);
    const char *key;
    json_t *id;
    int result = read_object(out, path, err);
    if (result == 0 && json_object_size(*out) > TOKENIZER_VOCAB_MAX)
        result = err_set(err, ERR_INVALID_MODEL, "%s has %zu tokens, at most %d are allowed", path,
                         json_object_size(*out), TOKENIZER_VOCAB_MAX);
    if (result == 0)
        json_object_foreach (*out, key, id) {
            if (json_is_integer(id) && json_integer_value(id) >= 0 &&
                json_integer_value(id) < TOKENIZER_VOCAB_MAX)
                continue;
            result = err_set(err, ERR_INVALID_MODEL, "%s: the id of '%s' is not from 0 to %d", path,
                             key, TOKENIZER_VOCAB_MAX - 1);
            break;
        }
    free(path);
    return result;
}

/* special_tokens_map.json may be missing. */
static int read_map(struct loading *loading, struct err *err)
{
    if (access(loading->map_path, F_OK) != 0)
        return 0;
    return read_object(&loading->map, loading->map_path, err);
}

static int read_length(struct tokenizer *tokenizer, const struct loading *loading, struct err *err)
{
    int64_t length = 0;
    int result = jsonx_int(loading->config, "model_max_length", 3, LENGTH_MAX, &length,
                           loading->config_path, err);
    if (result != 0)
        return result;
    if (length == 0)
        return err_set(err, ERR_INVALID_MODEL, "%s: 'model_max_length' is missing",
                       loading->config_path);
    tokenizer->max_length = (int)length;
    return 0;
}

/* PCRE2 without its just-in-time compiler matches the same, so that its absence is no error. */
static void compile_pattern(struct tokenizer *tokenizer)
{
    int error;
    PCRE2_SIZE offset;
    tokenizer->pattern = pcre2_compile((PCRE2_SPTR)PATTERN, PCRE2_ZERO_TERMINATED,
                                       PCRE2_UTF | PCRE2_UCP, &error, &offset, NULL);
    tokenizer->limits = pcre2_match_context_create(NULL);
    BUG_ON(!tokenizer->pattern || !tokenizer->limits);
    pcre2_set_match_limit(tokenizer->limits, MATCH_LIMIT);
    pcre2_set_depth_limit(tokenizer->limits, MATCH_LIMIT);
    pcre2_jit_compile(tokenizer->pattern, PCRE2_JIT_COMPLETE);
}

static int load_merges(struct tokenizer *tokenizer, const struct loading *loading, int32_t unknown,
                       struct err *err)
{
    char *path = xasprintf("%s/merges.txt", loading->folder);
    int result = bpe_load(&tokenizer->bpe, loading->vocab, unknown, path, err);
    free(path);
    return result;
}

static int load_all(struct tokenizer *tokenizer, struct loading *loading, struct err *err)
{
    int32_t unknown = 0;
    int result = read_object(&loading->config, loading->config_path, err);
    if (result == 0)
        result = read_map(loading, err);
    if (result == 0)
        result = read_vocab(&loading->vocab, loading->folder, err);
    if (result == 0)
        result = read_length(tokenizer, loading, err);
    if (result == 0)
        result = add_tokens(tokenizer, loading, &unknown, err);
    if (result == 0)
        result = load_merges(tokenizer, loading, unknown, err);
    return result;
}

int tokenizer_load(struct tokenizer **out, const char *folder, struct err *err)
{
    struct loading loading = {
        .folder = folder,
        .config_path = xasprintf("%s/tokenizer_config.json", folder),
        .map_path = xasprintf("%s/special_tokens_map.json", folder),
    };
    struct tokenizer *tokenizer = xcalloc(1, sizeof *tokenizer);
    tokenizer->added = xcalloc(ADDED_MAX, sizeof *tokenizer->added);
    compile_pattern(tokenizer);
    int result = load_all(tokenizer, &loading, err);
    json_decref(loading.vocab);
    json_decref(loading.config);
    json_decref(loading.map);
    free(loading.config_path);
    free(loading.map_path);
    if (result != 0) {
        tokenizer_free(tokenizer);
        return result;
    }
    *out = tokenizer;
    return 0;
}

void tokenizer_free(struct tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    for (size_t i = 0; i < tokenizer->added_count; i++)
        codepoints_release(&tokenizer->added[i].text);
    free(tokenizer->added);
    bpe_free(tokenizer->bpe);
    pcre2_code_free(tokenizer->pattern);
    pcre2_match_context_free(tokenizer->limits);
    free(tokenizer);
}

int tokenizer_max_length(const struct tokenizer *tokenizer)
{
    return tokenizer->max_length;
}

/* --- encoding --- */

/* One text on its way. */
struct run {
    const struct tokenizer *tokenizer;
    struct token_sink sink;
    struct bpe_scratch scratch;
    struct codepoints raw, normal;
    char *bytes; /* a piece as UTF-8 */
    pcre2_match_data *match;
    struct err *err;
};

static void run_release(struct run *run)
{
    bpe_scratch_release(&run->scratch);
    codepoints_release(&run->raw);
    codepoints_release(&run->normal);
    free(run->bytes);
    pcre2_match_data_free(run->match);
}

/* The words of a piece in the normal form. */
static int encode_words(struct run *run, const int32_t *text, size_t count)
{
    const struct tokenizer *tokenizer = run->tokenizer;
    free(run->bytes);
    run->bytes = malloc(4 * count);
    if (!run->bytes)
        return err_set(run->err, ERR_OUT_OF_MEMORY, "no memory for %zu characters", count);
    size_t size = unicode_encode(text, count, run->bytes);
    const PCRE2_SIZE *word = pcre2_get_ovector_pointer(run->match);
    for (size_t at = 0; at < size; at = word[1]) {
        int found = pcre2_match(tokenizer->pattern, (PCRE2_SPTR)run->bytes, size, at,
                                PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, run->match, tokenizer->limits);
        if (found == PCRE2_ERROR_NOMATCH)
            break;
        if (found < 0)
            return err_set(run->err, ERR_OUT_OF_MEMORY, "cannot match a text: PCRE2's error %d",
                           found);
        int result = bpe_encode(tokenizer->bpe, run->bytes + word[0], word[1] - word[0],
                                &run->scratch, &run->sink, run->err);
        if (result != 0)
            return result;
    }
    return 0;
}

/* The longest added token of that kind that `text` begins with, or NULL. */
static const struct added_token *added_at(const struct tokenizer *tokenizer, bool normalized,
                                          const int32_t *text, size_t count)
{
    const struct added_token *longest = NULL;
    for (size_t i = 0; i < tokenizer->added_count; i++) {
        const struct added_token *token = &tokenizer->added[i];
        size_t length = token->text.count;
        if (token->normalized == normalized && length <= count && token->text.at[0] == text[0] &&
            memcmp(token->text.at, text, length * sizeof *text) == 0 &&
            (!longest || length > longest->text.count))
            longest = token;
    }
    return longest;
}

typedef int piece_function(struct run *run, const int32_t *text, size_t count);

/* Added tokens of that kind go to the sink, what is between them to `piece`. */
static int split_added(struct run *run, bool normalized, const int32_t *text, size_t count,
                       piece_function *piece)
{
    size_t start = 0;
    for (size_t at = 0; at < count;) {
        const struct added_token *token =
            added_at(run->tokenizer, normalized, text + at, count - at);
        if (!token) {
            at++;
            continue;
        }
        int result = at > start ? piece(run, text + start, at - start) : 0;
        if (result != 0)
            return result;
        token_sink_put(&run->sink, token->id);
        start = at += token->text.count;
    }
    return count > start ? piece(run, text + start, count - start) : 0;
}

static int encode_piece(struct run *run, const int32_t *text, size_t count)
{
    int result = unicode_normalize(&run->normal, text, count, run->err);
    return result ? result
                  : split_added(run, true, run->normal.at, run->normal.count, encode_words);
}

static int run_text(struct run *run, const char *text, size_t size)
{
    run->match = pcre2_match_data_create(1, NULL);
    if (!run->match)
        return err_set(run->err, ERR_OUT_OF_MEMORY, "no memory to match a text");
    int result = unicode_decode(&run->raw, text, size, run->err);
    return result ? result : split_added(run, false, run->raw.at, run->raw.count, encode_piece);
}

/* ids [max_length] has the tokens from its second place on; begin, end and padding go around them.
 */
static int frame(const struct tokenizer *tokenizer, size_t count, int32_t *ids, uint8_t *mask)
{
    int length = tokenizer->max_length, room = length - 2;
    int kept = count < (size_t)room ? (int)count : room;
    ids[0] = tokenizer->begin;
    ids[kept + 1] = tokenizer->end;
    for (int i = 0; i < length; i++) {
        mask[i] = i < kept + 2;
        if (!mask[i])
            ids[i] = tokenizer->padding;
    }
    size_t dropped = count - (size_t)kept;
    return dropped < INT_MAX ? (int)dropped : INT_MAX;
}

int tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t size, int part,
                     int32_t *ids, uint8_t *mask, int *dropped, struct err *err)
{
    size_t room = (size_t)tokenizer->max_length - 2;
    if (size > TOKENIZER_TEXT_MAX)
        return err_set(err, ERR_TOO_LARGE, "a text has %zu bytes, at most %u are allowed", size,
                       TOKENIZER_TEXT_MAX);
    struct run run = {
        .tokenizer = tokenizer,
        .sink = {.ids = ids + 1, .skip = (size_t)part * room, .room = room},
        .err = err,
    };
    int result = run_text(&run, text, size);
    if (result == 0)
        *dropped =
            frame(tokenizer, run.sink.count > run.sink.skip ? run.sink.count - run.sink.skip : 0,
                  ids, mask);
    run_release(&run);
    return result;
}
