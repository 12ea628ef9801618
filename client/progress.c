/* SPDX-License-Identifier: Apache-2.0 */
/* Bars and lines. */
#include "client/progress.h"

#include <langinfo.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "client/status_hash.h"
#include "client/text.h"

#define BAR_MAX        40
#define BAR_MIN        8
#define TEXT_COLUMNS   42    /* of a stage's line beside its bar */
#define DURATION_MAX_S 3.6e8 /* what is longer is shown as this, 100,000 hours */
#define PACE_MS        500   /* a shorter look tells nothing */

/* --- out of a status --- */

/* Whatever stands in Redis, a bar has an end. */
static double share(double fraction)
{
    return fraction > 0 ? fmin(fraction, 1) : 0;
}

static int stage_index(const json_t *route, const char *name)
{
    size_t i;
    const json_t *hop;
    json_array_foreach (route, i, hop)
        if (strcmp(status_text(hop, "stage"), name) == 0)
            return (int)i;
    return -1;
}

static enum stage_phase phase_of(int index, int current, enum job_state state)
{
    if (state == JOB_SUCCEEDED || index < current)
        return PHASE_DONE;
    return index == current && state == JOB_RUNNING ? PHASE_DOING : PHASE_WAITING;
}

static void stage_from_status(struct stage_progress *out, const json_t *hop, const json_t *status,
                              int index, int current)
{
    enum stage stage = STAGE_TEXT_ENCODE;
    const json_t *ms =
        json_object_get(json_object_get(status, "timings"), status_text(hop, "stage"));

    stage_parse(status_text(hop, "stage"), &stage);
    *out = (struct stage_progress){
        .name = stage_name(stage),
        .phase = phase_of(index, current, status_state(status)),
        .steps = (int)status_int(hop, "steps"),
        .ms = ms ? json_number_value(ms) : -1,
    };
    if (out->phase == PHASE_DONE)
        out->step = out->steps;
    else if (index == current)
        out->step = (int)status_int(status, "step");
}

void progress_from_status(struct progress *progress, const json_t *status)
{
    const json_t *route = json_object_get(status, "route"), *hop;
    int current = stage_index(route, status_text(status, "stage"));
    size_t i;

    const json_t *ahead = json_object_get(status, "queue_position");
    const json_t *eta = json_object_get(status, "eta_ms");
    *progress = (struct progress){
        .waits = ahead != NULL,
        .ahead = json_integer_value(ahead),
        .eta_s = eta ? (double)json_integer_value(eta) / 1000 : -1,
        .fraction = share(status_number(status, "progress")),
        .done = (int)status_int(status, "images_done"),
        .failed = (int)status_int(status, "images_failed"),
        .total = (int)status_int(status, "images_total"),
    };
    snprintf(progress->id, sizeof progress->id, "%s", status_text(status, "id"));
    snprintf(progress->state, sizeof progress->state, "%s", status_text(status, "state"));
    snprintf(progress->words, sizeof progress->words, "%s", status_text(status, "error_message"));
    if (!*progress->words)
        snprintf(progress->words, sizeof progress->words, "%s", status_text(status, "waiting"));
    json_array_foreach (route, i, hop)
        if (progress->count < ROUTE_MAX)
            stage_from_status(&progress->stages[progress->count++], hop, status, (int)i, current);
}

/* --- pace --- */

double pace_eta(struct pace *pace, int stage, int64_t now_ms, double fraction)
{
    if (pace->stage != stage + 1)
        *pace = (struct pace){stage + 1, now_ms, fraction};
    double won = fraction - pace->first_fraction;
    int64_t ms = now_ms - pace->first_ms;
    if (won <= 0 || ms < PACE_MS)
        return -1;
    return (1 - fraction) * (double)ms / 1000 / won;
}

void progress_duration(double seconds, char out[24])
{
    int whole = (int)fmin(seconds + 0.5, DURATION_MAX_S);
    if (whole < 60)
        snprintf(out, 24, "%d s", whole);
    else if (whole < 3600)
        snprintf(out, 24, "%d min %d s", whole / 60, whole % 60);
    else
        snprintf(out, 24, "%d h %d min", whole / 3600, whole / 60 % 60);
}

/* --- text --- */

struct text {
    FILE *out;
    char *bytes;
    size_t size;
};

static void text_open(struct text *text)
{
    text->out = open_memstream(&text->bytes, &text->size);
    BUG_ON(!text->out);
}

static char *text_close(struct text *text)
{
    BUG_ON(fclose(text->out) != 0);
    return text->bytes;
}

static double stage_fraction(const struct stage_progress *stage)
{
    if (stage->phase == PHASE_DONE)
        return 1;
    if (stage->phase == PHASE_WAITING || stage->steps == 0)
        return 0;
    return share((double)stage->step / stage->steps);
}

static void write_bar(FILE *out, double fraction, int width, bool utf8)
{
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    int parts = (int)(fraction * width * 8 + 0.5);
    int full = parts / 8, rest = utf8 ? parts % 8 : 0;

    for (int i = 0; i < full; i++)
        fputs(utf8 ? "█" : "#", out);
    fputs(eighths[rest], out);
    for (int i = full + (rest > 0); i < width; i++)
        fputs(utf8 ? "░" : "-", out);
}

static void write_stage(FILE *out, const struct stage_progress *stage, int width, bool utf8)
{
    char where[24] = "waiting", took[24] = "";

    if (stage->phase == PHASE_DONE)
        snprintf(where, sizeof where, "done");
    else if (stage->phase == PHASE_DOING && stage->steps > 0)
        snprintf(where, sizeof where, "%d/%d", stage->step, stage->steps);
    else if (stage->phase == PHASE_DOING)
        snprintf(where, sizeof where, "working");
    if (stage->ms >= 0)
        snprintf(took, sizeof took, "%.2f s", stage->ms / 1000);
    fprintf(out, "  %-12s ", stage->name);
    write_bar(out, stage_fraction(stage), width, utf8);
    fprintf(out, "  %-9s %s\n", where, took);
}

static void write_head(FILE *out, const struct progress *progress, double eta_s)
{
    char eta[24];

    if (*progress->id)
        fprintf(out, "%s ", progress->id);
    text_print(progress->state, false, out);
    fprintf(out, "  %.0f %%", progress->fraction * 100);
    if (progress->total > 1)
        fprintf(out, "  %d of %d pictures", progress->done, progress->total);
    if (progress->failed)
        fprintf(out, ", %d failed", progress->failed);
    if (progress->waits)
        fprintf(out, "  %lld pictures ahead", (long long)progress->ahead);
    if (eta_s >= 0 && progress->fraction < 1) {
        progress_duration(eta_s, eta);
        fprintf(out, "  ETA %s", eta);
    }
    if (*progress->words) {
        fputs("  ", out);
        text_print(progress->words, false, out);
    }
    fputc('\n', out);
}

char *progress_bars(const struct progress *progress, double eta_s,
                    const struct progress_style *style)
{
    struct text text;
    int width = style->columns - TEXT_COLUMNS;

    width = width > BAR_MAX ? BAR_MAX : width < BAR_MIN ? BAR_MIN : width;
    text_open(&text);
    write_head(text.out, progress, eta_s);
    for (int i = 0; i < progress->count; i++)
        write_stage(text.out, &progress->stages[i], width, style->utf8);
    return text_close(&text);
}

/* The index of the stage that works, or -1. */
static int stage_doing(const struct progress *progress)
{
    for (int i = 0; i < progress->count; i++)
        if (progress->stages[i].phase == PHASE_DOING)
            return i;
    return -1;
}

char *progress_line(const struct progress *progress)
{
    int stage = stage_doing(progress);
    struct text text;

    text_open(&text);
    text_print(progress->state, false, text.out);
    if (stage >= 0)
        fprintf(text.out, ": %s", progress->stages[stage].name);
    if (progress->total > 1)
        fprintf(text.out, ", %d of %d pictures", progress->done, progress->total);
    if (progress->failed)
        fprintf(text.out, ", %d failed", progress->failed);
    if (*progress->words) {
        fputs(": ", text.out);
        text_print(progress->words, false, text.out);
    }
    return text_close(&text);
}

/* --- the screen --- */

void progress_open(struct progress_screen *screen, FILE *out)
{
    struct winsize size;
    const char *term = getenv("TERM");
    int fd = fileno(out);

    *screen = (struct progress_screen){.out = out, .style = {.columns = 80}};
    screen->terminal = isatty(fd) && term && strcmp(term, "dumb") != 0;
    screen->style.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    if (screen->terminal && ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        screen->style.columns = size.ws_col;
}

static int lines_of(const char *text)
{
    int lines = 0;
    for (; *text; text++)
        lines += *text == '\n';
    return lines;
}

/* The bytes of at most `columns` characters of [text, end): a line that wraps cannot be
 * overwritten. */
static int bytes_of(const char *text, const char *end, int columns)
{
    const char *at = text;
    for (; at < end && (columns > 0 || ((unsigned char)*at & 0xc0) == 0x80); at++)
        columns -= ((unsigned char)*at & 0xc0) != 0x80;
    return (int)(at - text);
}

/* Up over the old bars, then each line anew, the rest of it cleared. */
static void draw(struct progress_screen *screen, const char *bars)
{
    if (screen->lines)
        fprintf(screen->out, "\033[%dA", screen->lines);
    for (const char *line = bars; *line;) {
        const char *end = strchr(line, '\n');
        fprintf(screen->out, "%.*s\033[K\n", bytes_of(line, end, screen->style.columns), line);
        line = end + 1;
    }
    fputs("\033[J", screen->out);
    screen->lines = lines_of(bars);
}

void progress_show(struct progress_screen *screen, const struct progress *progress, int64_t now_ms)
{
    double eta = pace_eta(&screen->pace, stage_doing(progress), now_ms, progress->fraction);
    if (progress->waits)
        eta = progress->eta_s;
    char *text =
        screen->terminal ? progress_bars(progress, eta, &screen->style) : progress_line(progress);

    bool between = !screen->terminal && strcmp(progress->state, "running") == 0 &&
                   stage_doing(progress) < 0; /* two stages: not worth a line */
    if (between || (screen->last && strcmp(screen->last, text) == 0)) {
        free(text);
        return;
    }
    if (screen->terminal)
        draw(screen, text);
    else
        fprintf(screen->out, "%s\n", text);
    fflush(screen->out);
    free(screen->last);
    screen->last = text;
}

void progress_close(struct progress_screen *screen)
{
    free(screen->last);
    screen->last = NULL;
}
