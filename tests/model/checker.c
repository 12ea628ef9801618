/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checker: states lie one after the other in the order in which they were found, which is the
 * queue of the search too; a hash table of their numbers finds them again. Steps that are not
 * faults are kept as pairs of numbers, and sorted by their ends for the way back from the goals.
 */
#include "tests/model/checker.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/memory.h"

#define NOWHERE UINT32_MAX

struct origin {
    uint32_t parent;
    uint16_t label;
};

struct edge {
    uint32_t from, to;
};

struct checker {
    const struct model *model;
    const void *context;
    unsigned char *states;
    struct origin *origins;
    size_t count, room, limit;
    uint32_t *table; /* numbers; NOWHERE: empty */
    size_t mask;
    struct edge *edges;
    size_t edge_count, edge_room, steps;
    uint32_t at; /* being expanded */
    bool full;
};

static unsigned char *state_at(const struct checker *checker, size_t number)
{
    return checker->states + number * checker->model->state_size;
}

static uint64_t hash_of(const unsigned char *bytes, size_t size)
{
    uint64_t hash = 0x9e3779b97f4a7c15u, word;
    for (size_t i = 0; i < size; i += sizeof word) {
        word = 0;
        memcpy(&word, bytes + i, size - i < sizeof word ? size - i : sizeof word);
        hash = (hash ^ word) * 0xff51afd7ed558ccdu;
        hash ^= hash >> 32;
    }
    return hash;
}

static uint32_t *place_of(const struct checker *checker, const void *state)
{
    size_t size = checker->model->state_size, slot = hash_of(state, size) & checker->mask;
    while (checker->table[slot] != NOWHERE &&
           memcmp(state_at(checker, checker->table[slot]), state, size) != 0)
        slot = (slot + 1) & checker->mask;
    return &checker->table[slot];
}

static void table_make(struct checker *checker, size_t slots)
{
    free(checker->table);
    checker->table = xmalloc(slots * sizeof *checker->table);
    memset(checker->table, 0xff, slots * sizeof *checker->table);
    checker->mask = slots - 1;
    for (size_t i = 0; i < checker->count; i++)
        *place_of(checker, state_at(checker, i)) = (uint32_t)i;
}

static void states_grow(struct checker *checker)
{
    checker->room = checker->room ? checker->room * 2 : 4096;
    checker->states = xrealloc(checker->states, checker->room * checker->model->state_size);
    checker->origins = xrealloc(checker->origins, checker->room * sizeof *checker->origins);
    table_make(checker, checker->room * 2);
}

/* The state's number; a new one if it was not known. */
static uint32_t state_add(struct checker *checker, const void *state, uint32_t parent,
                          unsigned label)
{
    uint32_t *place = place_of(checker, state);
    if (*place != NOWHERE)
        return *place;
    if (checker->count == checker->room) {
        states_grow(checker);
        place = place_of(checker, state);
    }
    uint32_t number = (uint32_t)checker->count++;
    memcpy(state_at(checker, number), state, checker->model->state_size);
    checker->origins[number] = (struct origin){parent, (uint16_t)label};
    *place = number;
    return number;
}

static void edge_add(struct checker *checker, uint32_t from, uint32_t to)
{
    if (checker->edge_count == checker->edge_room) {
        checker->edge_room = checker->edge_room ? checker->edge_room * 2 : 4096;
        checker->edges = xrealloc(checker->edges, checker->edge_room * sizeof *checker->edges);
    }
    checker->edges[checker->edge_count++] = (struct edge){from, to};
}

void checker_step(struct checker *checker, const void *next, unsigned label, bool fault)
{
    checker->steps++;
    if (checker->count == checker->limit && *place_of(checker, next) == NOWHERE) {
        checker->full = true;
        return;
    }
    uint32_t to = state_add(checker, next, checker->at, label);
    if (!fault && to != checker->at)
        edge_add(checker, checker->at, to);
}

/* --- the way back --- */

/* The edges by their ends: those to state i are froms[first[i]] to froms[first[i + 1] - 1]. */
static uint32_t *edges_sort(const struct checker *checker, uint32_t **first)
{
    uint32_t *froms = xmalloc((checker->edge_count + 1) * sizeof *froms);
    *first = xcalloc(checker->count + 2, sizeof **first);
    for (size_t i = 0; i < checker->edge_count; i++)
        (*first)[checker->edges[i].to + 2]++;
    for (size_t i = 2; i < checker->count + 2; i++)
        (*first)[i] += (*first)[i - 1];
    for (size_t i = 0; i < checker->edge_count; i++)
        froms[(*first)[checker->edges[i].to + 1]++] = checker->edges[i].from;
    return froms;
}

/* Marks what can reach a marked state; `queue` holds `tail` of them. */
static void mark_back(const struct checker *checker, bool *marks, uint32_t *queue, size_t tail)
{
    uint32_t *first, *froms = edges_sort(checker, &first);
    for (size_t head = 0; head < tail; head++)
        for (uint32_t i = first[queue[head]]; i < first[queue[head] + 1]; i++)
            if (!marks[froms[i]]) {
                marks[froms[i]] = true;
                queue[tail++] = froms[i];
            }
    free(first);
    free(froms);
}

/* The first state from which no goal can be reached any more, or NOWHERE. */
static uint32_t stuck_find(const struct checker *checker, size_t *goals)
{
    bool *marks = xcalloc(checker->count, sizeof *marks);
    uint32_t *queue = xmalloc(checker->count * sizeof *queue), found = NOWHERE;
    *goals = 0;
    for (size_t i = 0; i < checker->count; i++)
        if (checker->model->goal(checker->context, state_at(checker, i))) {
            marks[i] = true;
            queue[(*goals)++] = (uint32_t)i;
        }
    mark_back(checker, marks, queue, *goals);
    for (size_t i = 0; i < checker->count && found == NOWHERE; i++)
        if (!marks[i])
            found = (uint32_t)i;
    free(marks);
    free(queue);
    return found;
}

/* --- telling --- */

static size_t depth_of(const struct checker *checker, uint32_t number)
{
    size_t depth = 0;
    for (; checker->origins[number].parent != NOWHERE; number = checker->origins[number].parent)
        depth++;
    return depth;
}

static void trace_write(const struct checker *checker, uint32_t number, FILE *out)
{
    size_t depth = depth_of(checker, number);
    uint32_t *way = xmalloc((depth + 1) * sizeof *way);
    for (size_t i = depth + 1; i-- > 0; number = checker->origins[number].parent)
        way[i] = number;
    for (size_t i = 1; i <= depth; i++) {
        char text[CHECKER_LABEL_SIZE];
        checker->model->label(checker->context, checker->origins[way[i]].label, text);
        fprintf(out, "  %3zu  %s\n", i, text);
    }
    checker->model->show(checker->context, state_at(checker, way[depth]), out);
    free(way);
}

static struct finding conclude(const struct checker *checker, enum verdict verdict,
                               const char *what, uint32_t number, FILE *trace)
{
    struct finding finding = {.verdict = verdict,
                              .what = what,
                              .states = checker->count,
                              .steps = checker->steps,
                              .depth = depth_of(checker, number)};
    if (trace && verdict == VERDICT_VIOLATED)
        fprintf(trace, "violated: %s\n", what);
    if (trace && verdict == VERDICT_STUCK)
        fprintf(trace, "stuck: no way from here leads to the goal\n");
    if (trace && (verdict == VERDICT_VIOLATED || verdict == VERDICT_STUCK))
        trace_write(checker, number, trace);
    return finding;
}

static struct finding search(struct checker *checker, FILE *trace)
{
    const struct model *model = checker->model;
    unsigned char *state = xcalloc(1, model->state_size);
    struct finding finding = {0};
    bool violated = false;

    model->initial(checker->context, state);
    state_add(checker, state, NOWHERE, 0);
    for (size_t i = 0; i < checker->count && !violated && !checker->full; i++) {
        memcpy(state, state_at(checker, i), model->state_size); /* the array may move */
        const char *what = model->violation(checker->context, state);
        checker->at = (uint32_t)i;
        violated = what != NULL;
        if (violated)
            finding = conclude(checker, VERDICT_VIOLATED, what, (uint32_t)i, trace);
        else
            model->expand(checker->context, state, checker);
    }
    free(state);
    if (violated)
        return finding;
    uint32_t last = (uint32_t)checker->count - 1;
    if (checker->full)
        return conclude(checker, VERDICT_TOO_BIG, NULL, last, trace);
    size_t goals;
    uint32_t stuck = stuck_find(checker, &goals);
    finding = stuck == NOWHERE ? conclude(checker, VERDICT_HOLDS, NULL, last, trace)
                               : conclude(checker, VERDICT_STUCK, NULL, stuck, trace);
    finding.goals = goals;
    return finding;
}

struct finding checker_run(const struct model *model, const void *context, size_t limit,
                           FILE *trace)
{
    struct checker checker = {.model = model, .context = context, .limit = limit};
    BUG_ON(limit >= NOWHERE);
    states_grow(&checker);
    struct finding finding = search(&checker, trace);
    free(checker.states);
    free(checker.origins);
    free(checker.table);
    free(checker.edges);
    return finding;
}
