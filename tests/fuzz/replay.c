/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands in for libFuzzer in builds without it: runs the target once over every file of the folders
 * that it is given, so that what was found once stays mended.
 */
#include <dirent.h>

#include "tests/fuzz/fuzz.h"

#define FILE_MAX (1u << 20)

__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    return 0;
}

static void replay(const char *path)
{
    FILE *file = fopen(path, "rb");
    BUG_ON(!file);
    uint8_t *bytes = xmalloc(FILE_MAX);
    size_t size = fread(bytes, 1, FILE_MAX, file);
    BUG_ON(ferror(file) || !feof(file));
    fclose(file);
    bytes = xrealloc(bytes, size ? size : 1); /* what is read behind the end is heard */
    LLVMFuzzerTestOneInput(bytes, size);
    free(bytes);
}

static size_t replay_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;
    size_t count = 0;
    if (!dir) {
        fprintf(stderr, "cannot open '%s'\n", folder);
        exit(1);
    }
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] == '.')
            continue;
        char *path = xasprintf("%s/%s", folder, entry->d_name);
        printf("%s\n", path);
        fflush(stdout);
        replay(path);
        free(path);
        count++;
    }
    closedir(dir);
    return count;
}

int main(int argc, char **argv)
{
    size_t count = 0;
    LLVMFuzzerInitialize(&argc, &argv);
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++)
        count += replay_folder(argv[i]);
    printf("%zu files\n", count);
    return count > 0 ? 0 : 1;
}
