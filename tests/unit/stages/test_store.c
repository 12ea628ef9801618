/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packed weights on disk: a warm start gives the same bits, whatever is wrong with the file is
 * noticed and mended, and several processes may start at once.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <utime.h>

#include "nn_fixture.h"

#define IC   19 /* so that layouts are padded */
#define OC   13
#define SIZE 9
#define ROWS 5

static char folder[64], model[96], kept[96];
static char notes[4096];

static void note(const char *text)
{
    strncat(notes, text, sizeof(notes) - strlen(notes) - 1);
}

static void remove_files(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char *name = xasprintf("%s/%s", path, entry->d_name);
        unlink(name);
        free(name);
    }
    if (dir)
        closedir(dir);
    rmdir(path);
}

static int set_up(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/unclip-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(model, sizeof(model), "%s/weights.safetensors", folder);
    snprintf(kept, sizeof(kept), "%s/cache", folder);
    struct fixture f = {.dtype = DTYPE_BF16, .seed = 3};
    float *values = fixture_values(&f, OC * IC * 9, 1, 0);
    struct safetensors_entry entries[] = {
        F32_ENTRY("c.weight", values, OC, IC, 3, 3), F32_ENTRY("c.bias", values, OC),
        F32_ENTRY("q.weight", values, OC, IC),       F32_ENTRY("q.bias", values, OC),
        F32_ENTRY("k.weight", values + 7, OC, IC),   F32_ENTRY("k.bias", values + 7, OC)};
    void *bytes;
    size_t size;
    struct err err = {0};
    assert_int_equal(safetensors_encode(entries, COUNT_OF(entries), NULL, 0, &bytes, &size, &err),
                     0);
    FILE *file = fopen(model, "wb");
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
    free(bytes);
    free(values);
    notes[0] = '\0';
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    remove_files(kept);
    remove_files(folder);
    return 0;
}

struct layers {
    struct conv2d conv;
    struct linear linear;
};

static void load(struct fixture *f, struct layers *layers)
{
    struct weights *weights;
    struct err err = {0};
    static const char *const names[] = {"q", "k", NULL};
    assert_int_equal(weights_open(&weights, model, &err), 0);
    assert_int_equal(conv2d_load(&layers->conv, f->nn, weights, "c", IC, OC, 3, 1, 1, true, &err),
                     0);
    assert_int_equal(linear_load_joined(&layers->linear, f->nn, weights, names, IC,
                                        (int64_t[]){OC, OC}, true, &err),
                     0);
    assert_int_equal(weights_finish(weights, &err), 0);
    weights_close(weights);
}

static void release(struct layers *layers)
{
    conv2d_release(&layers->conv);
    linear_release(&layers->linear);
}

#define OUT_COUNT (SIZE * SIZE * OC + ROWS * 2 * OC)

static void run(struct fixture *f, struct layers *layers, float *out)
{
    float *values =
        fixture_values(&(struct fixture){.dtype = DTYPE_BF16, .seed = 5}, SIZE * SIZE * IC, 1, 0);
    size_t scope = nn_enter(f->nn);
    struct tensor x = nn_from_f32(f->nn, values, 4, (int64_t[]){1, SIZE, SIZE, IC});
    struct tensor rows = nn_from_f32(f->nn, values, 2, (int64_t[]){ROWS, IC});
    nn_to_f32(f->nn, nn_conv2d(f->nn, &layers->conv, x, (struct conv_fuse){0}), out);
    nn_to_f32(f->nn, nn_linear(f->nn, &layers->linear, rows, (struct linear_fuse){0}),
              out + SIZE * SIZE * OC);
    nn_leave_all(f->nn, scope);
    free(values);
}

/* One start: opens, loads, runs twice (the second time with what was adopted), closes. */
static void start(enum dtype dtype, const char *where, float *out)
{
    struct fixture f;
    struct layers layers;
    float again[OUT_COUNT];
    assert_true(fixture_open(&f, dtype, 2));
    if (where)
        nn_keep_packed(f.nn, where, note);
    load(&f, &layers);
    run(&f, &layers, out);
    run(&f, &layers, again);
    assert_memory_equal(out, again, sizeof(again));
    release(&layers);
    fixture_close(&f);
}

/* The one file that ends so, or NULL; owned. */
static char *kept_file(void)
{
    char *found = NULL;
    DIR *dir = opendir(kept);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        size_t length = strlen(entry->d_name);
        if (length > 7 && strcmp(entry->d_name + length - 7, ".packed") == 0) {
            assert_null(found);
            found = xasprintf("%s/%s", kept, entry->d_name);
        }
    }
    if (dir)
        closedir(dir);
    return found;
}

static struct stat kept_status(void)
{
    struct stat status;
    char *path = kept_file();
    assert_non_null(path);
    assert_int_equal(stat(path, &status), 0);
    free(path);
    return status;
}

/* Whether the file is still the one that was written then. */
static bool kept_since(const struct stat *before)
{
    struct stat now = kept_status();
    return now.st_ino == before->st_ino && now.st_ctim.tv_sec == before->st_ctim.tv_sec &&
           now.st_ctim.tv_nsec == before->st_ctim.tv_nsec;
}

static void flip_byte(off_t at)
{
    char byte;
    char *path = kept_file();
    int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte = (char)~byte;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
    free(path);
}

/* Whether this build of oneDNN can save layouts at all. */
static bool can_keep(void)
{
    return strstr(notes, "Operation not supported") == NULL;
}

static void test_warm(void **state)
{
    (void)state;
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16};
    for (size_t i = 0; i < COUNT_OF(dtypes); i++) {
        float plain[OUT_COUNT], cold[OUT_COUNT], warm[OUT_COUNT];
        if (dtypes[i] == DTYPE_BF16 && !nn_cpu_has_bf16())
            continue;
        start(dtypes[i], NULL, plain);
        assert_null(kept_file());
        start(dtypes[i], kept, cold);
        assert_memory_equal(plain, cold, sizeof(plain));
        if (!can_keep())
            return;
        struct stat before = kept_status();
        start(dtypes[i], kept, warm);
        assert_memory_equal(plain, warm, sizeof(plain));
        assert_true(kept_since(&before));
        assert_string_equal(notes, "");
        remove_files(kept);
    }
}

/* A warm start, after `harm`, gives the same bits, and says why it was not that warm. */
static void check_harm(void (*harm)(void), const char *said)
{
    float plain[OUT_COUNT], out[OUT_COUNT];
    start(DTYPE_F32, kept, plain);
    if (!can_keep())
        return;
    harm();
    struct stat before = kept_status();
    start(DTYPE_F32, kept, out);
    assert_memory_equal(plain, out, sizeof(plain));
    assert_non_null(strstr(notes, said));
    notes[0] = '\0';
    start(DTYPE_F32, kept, out);
    start(DTYPE_F32, kept, out);
    assert_memory_equal(plain, out, sizeof(plain));
    assert_string_equal(notes, "");
    assert_false(kept_since(&before));
}

static void harm_header(void)
{
    flip_byte(20);
}
static void harm_index(void)
{
    flip_byte(4096 + 3);
}
static void harm_data(void)
{
    flip_byte(kept_status().st_size - 5);
}
static void harm_length(void)
{
    char *path = kept_file();
    assert_int_equal(truncate(path, kept_status().st_size - 64), 0);
    free(path);
}
static void harm_all(void)
{
    char *path = kept_file();
    assert_int_equal(truncate(path, 10), 0);
    free(path);
}
static void change_weights(void)
{
    struct utimbuf times = {.actime = 1000000000, .modtime = 1000000000};
    assert_int_equal(utime(model, &times), 0);
}

static void test_header(void **state)
{
    (void)state;
    check_harm(harm_header, "damaged");
}
static void test_index(void **state)
{
    (void)state;
    check_harm(harm_index, "damaged");
}
static void test_data(void **state)
{
    (void)state;
    check_harm(harm_data, "are damaged: removed");
}
static void test_truncated(void **state)
{
    (void)state;
    check_harm(harm_length, "not whole");
}
static void test_stump(void **state)
{
    (void)state;
    check_harm(harm_all, "damaged");
}
static void test_foreign(void **state)
{
    (void)state;
    check_harm(change_weights, "of other weights");
}

static void test_unwritable(void **state)
{
    (void)state;
    float plain[OUT_COUNT], out[OUT_COUNT];
    char *inside = xasprintf("%s/cache", model); /* a file is no folder */
    start(DTYPE_F32, NULL, plain);
    start(DTYPE_F32, inside, out);
    assert_memory_equal(plain, out, sizeof(plain));
    assert_non_null(strstr(notes, "cannot keep packed weights"));
    free(inside);
}

/* Many processes start cold at once; each gets the right bits, and one file is left. */
static void test_at_once(void **state)
{
    (void)state;
    enum { PROCESSES = 4 };
    pid_t children[PROCESSES];
    float plain[OUT_COUNT], out[OUT_COUNT];
    for (int i = 0; i < PROCESSES; i++) {
        children[i] = fork(); /* before any OpenMP thread is */
        assert_true(children[i] >= 0);
        if (children[i] == 0) {
            float mine[OUT_COUNT], second[OUT_COUNT];
            start(DTYPE_F32, kept, mine);
            start(DTYPE_F32, NULL, second);
            _exit(memcmp(mine, second, sizeof(mine)) != 0);
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    start(DTYPE_F32, NULL, plain);
    start(DTYPE_F32, kept, out);
    assert_memory_equal(plain, out, sizeof(plain));
    if (can_keep())
        free(kept_file()); /* asserts that there are not two */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_at_once, set_up, tear_down), /* first: it forks */
        cmocka_unit_test_setup_teardown(test_warm, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_header, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_index, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_data, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_truncated, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stump, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_foreign, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unwritable, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
