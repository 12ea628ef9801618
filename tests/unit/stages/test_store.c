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
#include "stages/nn/onednn.h"
#include "stages/nn/store.h"

#define IC   19 /* so that layouts are padded */
#define OC   13
#define SIZE 9
#define ROWS 5

static char folder[64], model[96], kept[96];
static char notes[4096];
static const char *const joined[] = {"q", "k", NULL}, *const swapped[] = {"k", "q", NULL};
static const char *const *names = joined; /* of the linear layer */
static void (*meanwhile)(void); /* done once, between opening the weights and reading them */

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

/* Puts a new file in the model's place. */
static void write_model(unsigned seed)
{
    struct fixture f = {.dtype = DTYPE_BF16, .seed = seed};
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
    unlink(model);
    FILE *file = fopen(model, "wb");
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
    free(bytes);
    free(values);
}

static int set_up(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/unclip-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(model, sizeof(model), "%s/weights.safetensors", folder);
    snprintf(kept, sizeof(kept), "%s/cache", folder);
    write_model(3);
    notes[0] = '\0';
    names = joined;
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
    assert_int_equal(weights_open(&weights, model, &err), 0);
    if (meanwhile)
        meanwhile();
    meanwhile = NULL;
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

static void harm_mode(void)
{
    char *path = kept_file();
    assert_int_equal(chmod(path, 0664), 0);
    free(path);
}
/* Only root can give files away. */
static void harm_owner(void)
{
    char *path = kept_file();
    assert_int_equal(chown(path, 65534, (gid_t)-1), 0);
    free(path);
}
static void harm_link(void)
{
    char *path = kept_file(), *aside = xasprintf("%s/aside", folder);
    assert_int_equal(rename(path, aside), 0);
    assert_int_equal(symlink(aside, path), 0);
    free(path);
    free(aside);
}

static void test_mode(void **state)
{
    (void)state;
    check_harm(harm_mode, "open to other users' writing");
}
static void test_owner(void **state)
{
    (void)state;
    if (geteuid() == 0)
        check_harm(harm_owner, "another user's");
}
static void test_link(void **state)
{
    (void)state;
    check_harm(harm_link, "in no plain file");
}

/* What is left is readable by all and written by nobody else, in folders of this user alone. */
static void test_modes(void **state)
{
    (void)state;
    float out[OUT_COUNT];
    struct stat status;
    mode_t before = umask(0);
    start(DTYPE_F32, kept, out);
    umask(before);
    assert_int_equal(stat(kept, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    if (can_keep())
        assert_int_equal(kept_status().st_mode & 0777, 0644);
}

/* The file is of the weights that were read, not of those that have come into their place. */
static void other_model(void)
{
    write_model(4);
}

static void test_swapped(void **state)
{
    (void)state;
    float first[OUT_COUNT], second[OUT_COUNT], out[OUT_COUNT];
    start(DTYPE_F32, NULL, first);
    meanwhile = other_model;
    start(DTYPE_F32, kept, out);
    assert_memory_equal(first, out, sizeof(out));
    start(DTYPE_F32, NULL, second);
    assert_memory_not_equal(first, second, sizeof(second));
    for (int i = 0; i < 2; i++) {
        start(DTYPE_F32, kept, out);
        assert_memory_equal(second, out, sizeof(out));
    }
}

/* Other weights of the same size and time. */
static void test_same_time(void **state)
{
    (void)state;
    float plain[OUT_COUNT], out[OUT_COUNT];
    struct stat status;
    start(DTYPE_F32, kept, out);
    assert_int_equal(stat(model, &status), 0);
    write_model(4);
    struct timespec times[] = {status.st_atim, status.st_mtim};
    assert_int_equal(utimensat(AT_FDCWD, model, times, 0), 0);
    start(DTYPE_F32, NULL, plain);
    assert_memory_not_equal(plain, out, sizeof(out));
    if (!can_keep())
        return;
    start(DTYPE_F32, kept, out);
    assert_memory_equal(plain, out, sizeof(out));
    assert_non_null(strstr(notes, "of other weights"));
}

/* A file that lacks a layer is not replaced by one that has only that. */
static void test_lacking(void **state)
{
    (void)state;
    float plain[OUT_COUNT], out[OUT_COUNT];
    names = swapped;
    start(DTYPE_F32, kept, out);
    if (!can_keep())
        return;
    names = joined;
    start(DTYPE_F32, NULL, plain);
    start(DTYPE_F32, kept, out);
    assert_memory_equal(plain, out, sizeof(out));
    assert_non_null(strstr(notes, "are missing: removed"));
    assert_null(kept_file());
    notes[0] = '\0';
    start(DTYPE_F32, kept, out);
    struct stat before = kept_status();
    start(DTYPE_F32, kept, out);
    assert_memory_equal(plain, out, sizeof(out));
    assert_string_equal(notes, "");
    assert_true(kept_since(&before));
}

/* A layer of another shape or dtype is no layer, and the file goes. */
static void check_unlike(enum dtype dtype, const int64_t *dim)
{
    float out[OUT_COUNT];
    struct err err = {0};
    struct safetensors *file;
    struct store_layer layer;
    start(DTYPE_F32, kept, out);
    if (!can_keep())
        return;
    assert_int_equal(safetensors_open(&file, model, &err), 0);
    struct store *store = store_open(kept, model, file, DTYPE_F32, note);
    struct layout *like = layout_new(DTYPE_F32, 4, (int64_t[]){OC, IC, 3, 3}, NULL);
    struct layout *unlike = layout_new(dtype, 4, dim, NULL);
    assert_true(store_find(store, "c", like, &layer));
    layout_free(layer.layout);
    assert_string_equal(notes, "");
    assert_false(store_find(store, "c", unlike, &layer));
    assert_non_null(strstr(notes, "are damaged: removed"));
    assert_null(kept_file());
    notes[0] = '\0';
    layout_free(like);
    layout_free(unlike);
    store_release(store);
    safetensors_free(file);
}

static void test_unlike(void **state)
{
    (void)state;
    check_unlike(DTYPE_F32, (int64_t[]){OC, IC, 1, 1});
    check_unlike(DTYPE_F32, (int64_t[]){IC, OC, 3, 3});
    check_unlike(DTYPE_BF16, (int64_t[]){OC, IC, 3, 3});
}

/* Who comes to write finds the file written, and takes it. */
static void test_written_since(void **state)
{
    (void)state;
    float first[OUT_COUNT], out[OUT_COUNT];
    struct fixture f;
    struct layers layers;
    assert_true(fixture_open(&f, DTYPE_F32, 2));
    nn_keep_packed(f.nn, kept, note);
    load(&f, &layers);
    start(DTYPE_F32, kept, first);
    if (can_keep()) {
        struct stat before = kept_status();
        for (int i = 0; i < 2; i++) {
            run(&f, &layers, out);
            assert_memory_equal(first, out, sizeof(out));
        }
        assert_true(kept_since(&before));
        assert_string_equal(notes, "");
    }
    release(&layers);
    fixture_close(&f);
}

/* What a writer left that died is replaced, and is not followed where it leads. */
static void test_orphan(void **state)
{
    (void)state;
    float out[OUT_COUNT];
    start(DTYPE_F32, kept, out);
    if (!can_keep())
        return;
    char *path = kept_file(), *orphan = xasprintf("%s.new", path);
    char *aside = xasprintf("%s/aside", folder);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink(aside, orphan), 0);
    start(DTYPE_F32, kept, out);
    assert_string_equal(notes, "");
    assert_int_equal(access(path, R_OK), 0);
    struct stat status;
    assert_int_not_equal(lstat(orphan, &status), 0);
    assert_int_not_equal(lstat(aside, &status), 0);
    free(path);
    free(orphan);
    free(aside);
}

/* Weights that have gone since they were opened: one note, whatever the number of layers. */
static void remove_model(void)
{
    assert_int_equal(unlink(model), 0);
}

static void test_gone(void **state)
{
    (void)state;
    float plain[OUT_COUNT], out[OUT_COUNT];
    start(DTYPE_F32, NULL, plain);
    meanwhile = remove_model;
    start(DTYPE_F32, kept, out);
    assert_memory_equal(plain, out, sizeof(out));
    const char *said = strstr(notes, "cannot keep packed weights of");
    assert_non_null(said);
    assert_null(strstr(said + 1, "cannot keep"));
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
        cmocka_unit_test_setup_teardown(test_mode, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_owner, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_link, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_modes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_swapped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_same_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_lacking, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unlike, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_written_since, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_orphan, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_gone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unwritable, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
