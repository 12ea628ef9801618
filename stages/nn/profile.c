/* SPDX-License-Identifier: Apache-2.0 */
/* Where a context's time goes, by op and shape (nn.h, profile.h). */
#include "stages/nn/profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/memory.h"

struct row {
    struct profile_op op;
    struct nn_profile_row sum;
};

struct profile {
    int64_t began;
    struct row *rows;
    size_t count, capacity;
    struct nn_profile_row *sorted; /* [count], made when asked for */
};

int64_t profile_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

struct profile *profile_new(void)
{
    struct profile *profile = xcalloc(1, sizeof(*profile));
    profile->began = profile_now();
    return profile;
}

void profile_free(struct profile *profile)
{
    if (!profile)
        return;
    free(profile->rows);
    free(profile->sorted);
    free(profile);
}

static bool same_op(const struct profile_op *a, const struct profile_op *b)
{
    return strcmp(a->name, b->name) == 0 && a->x.rank == b->x.rank && a->oc == b->oc &&
           a->k == b->k && a->stride == b->stride &&
           memcmp(a->x.dim, b->x.dim, (size_t)a->x.rank * sizeof(a->x.dim[0])) == 0;
}

/* "2x64x64x320 -> 320 3x3" */
static void print_shape(const struct profile_op *op, char *out, size_t size)
{
    int place = 0;
    for (int i = 0; i < op->x.rank; i++)
        place += snprintf(out + place, size - (size_t)place, "%s%lld", i ? "x" : "",
                          (long long)op->x.dim[i]);
    place += snprintf(out + place, size - (size_t)place, " -> %lld", (long long)op->oc);
    if (op->k)
        place += snprintf(out + place, size - (size_t)place, " %dx%d", op->k, op->k);
    if (op->stride > 1)
        snprintf(out + place, size - (size_t)place, "/%d", op->stride);
}

static struct row *find_row(struct profile *profile, const struct profile_op *op)
{
    for (size_t i = 0; i < profile->count; i++) {
        if (same_op(&profile->rows[i].op, op))
            return &profile->rows[i];
    }
    if (profile->count == profile->capacity) {
        profile->capacity = profile->capacity ? 2 * profile->capacity : 64;
        profile->rows = xrealloc(profile->rows, profile->capacity * sizeof(*profile->rows));
    }
    struct row *row = &profile->rows[profile->count++];
    *row = (struct row){.op = *op, .sum = {.op = op->name}};
    print_shape(op, row->sum.shape, sizeof(row->sum.shape));
    return row;
}

void profile_add(struct profile *profile, int64_t began, const struct profile_op *op)
{
    struct row *row = find_row(profile, op);
    row->sum.calls++;
    row->sum.seconds += 1e-9 * (double)(profile_now() - began);
    row->sum.flop += op->flop;
    row->sum.bytes += op->bytes;
}

static int longest_first(const void *a, const void *b)
{
    const struct nn_profile_row *left = a, *right = b;
    return (left->seconds < right->seconds) - (left->seconds > right->seconds);
}

void nn_profile_start(struct nn *nn)
{
    profile_free(nn->profile);
    nn->profile = profile_new();
}

size_t nn_profile_rows(struct nn *nn, const struct nn_profile_row **rows)
{
    struct profile *profile = nn->profile;
    if (!profile)
        return 0;
    profile->sorted = xrealloc(profile->sorted, (profile->count + 1) * sizeof(*profile->sorted));
    for (size_t i = 0; i < profile->count; i++)
        profile->sorted[i] = profile->rows[i].sum;
    qsort(profile->sorted, profile->count, sizeof(*profile->sorted), longest_first);
    *rows = profile->sorted;
    return profile->count;
}

static void print_line(const char *op, const char *shape, const struct nn_profile_row *sum,
                       double total, FILE *out)
{
    fprintf(out, "%-20s %-28s %7lld %10.1f %5.1f%%", op, shape, (long long)sum->calls,
            1e3 * sum->seconds, total > 0 ? 100 * sum->seconds / total : 0);
    double rate = 1e-9 / (sum->seconds > 0 ? sum->seconds : 1);
    if (sum->flop > 0)
        fprintf(out, " %9.1f GFLOP/s %7.1f GB/s\n", sum->flop * rate, sum->bytes * rate);
    else
        fprintf(out, " %17s %7.1f GB/s\n", "", sum->bytes * rate);
}

void nn_profile_print(struct nn *nn, FILE *out)
{
    const struct nn_profile_row *rows = NULL;
    size_t count = nn_profile_rows(nn, &rows);
    if (!nn->profile)
        return;
    struct nn_profile_row all = {0};
    double total = 1e-9 * (double)(profile_now() - nn->profile->began);
    for (size_t i = 0; i < count; i++) {
        all.calls += rows[i].calls;
        all.seconds += rows[i].seconds;
        all.flop += rows[i].flop;
        all.bytes += rows[i].bytes;
    }
    fprintf(out, "%-20s %-28s %7s %10s %6s\n", "op", "shape", "calls", "ms", "share");
    for (size_t i = 0; i < count; i++)
        print_line(rows[i].op, rows[i].shape, &rows[i], total, out);
    print_line("all ops", "", &all, total, out);
    struct nn_profile_row rest = {.seconds = total - all.seconds};
    print_line("between ops", "", &rest, total, out);
}
