/* SPDX-License-Identifier: Apache-2.0 */
/* Packed weights on disk (store.h). */
#include "stages/nn/store.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/memory.h"
#include "stages/nn/onednn.h"
#include "stages/nn/packed.h"

#define MAGIC        "unclip\npacked 3\n" /* names the format's version */
#define NAME_SIZE    512
#define MAC_SIZE     16
#define PAGE         4096
#define LAYERS_MAX   65536
#define NAME_HASH    0xcbf29ce484222325u /* FNV-1a */
#define IDENTITY_MAX 128
#define DIGEST_SIZE  32         /* SHA-256 */
#define WHOLE_MAX    (4u << 20) /* bytes: weights up to this size are digested whole */
#define SAMPLES      256        /* pages digested of larger ones, evenly spread */

struct entry {
    char name[NAME_SIZE];
    uint64_t offset, bytes;
    uint64_t layout_bytes;
    unsigned char layout[LAYOUT_SAVED_MAX];
    unsigned char mac[MAC_SIZE]; /* of the data */
};

/* Compared as a whole, but for what follows `layers`. */
struct header {
    char magic[16];
    char identity[IDENTITY_MAX];
    char dtype[8];
    unsigned char source_digest[DIGEST_SIZE];
    uint64_t source_bytes;
    int64_t source_s, source_ns; /* of its last change */
    uint64_t layers, file_bytes;
    unsigned char index_mac[MAC_SIZE];
    unsigned char mac[MAC_SIZE]; /* of the header up to here */
};

struct expected {
    char name[NAME_SIZE];
    struct packed *packed;
};

struct store {
    int users;
    char *path;           /* of the packed file */
    store_note note;      /* may be NULL */
    struct header wanted; /* what a header must say, up to `layers` */
    unsigned char *map;   /* NULL: not there */
    size_t map_bytes;
    struct expected *expected;
    size_t count, capacity, settled;
    bool dropped; /* a layer went before all had settled */
};

static void say(store_note note, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(store_note note, const char *format, ...)
{
    char text[1024];
    if (!note)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    note(text);
}

/* GMAC of bytes under a fixed key. False when libcrypto fails. */
static bool mac_of(const void *bytes, size_t size, unsigned char out[MAC_SIZE])
{
    static const unsigned char key[16] = "unclip's weights", iv[12] = "packed once";
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int done, chunk = 1 << 30;
    bool good = context && EVP_EncryptInit_ex(context, EVP_aes_128_gcm(), NULL, key, iv) == 1;
    for (size_t at = 0; good && at < size; at += (size_t)chunk) {
        int now = size - at < (size_t)chunk ? (int)(size - at) : chunk;
        good = EVP_EncryptUpdate(context, NULL, &done, (const unsigned char *)bytes + at, now) == 1;
    }
    good = good && EVP_EncryptFinal_ex(context, out, &done) == 1 &&
           EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, MAC_SIZE, out) == 1;
    EVP_CIPHER_CTX_free(context);
    return good;
}

static bool mac_holds(const void *bytes, size_t size, const unsigned char mac[MAC_SIZE])
{
    unsigned char found[MAC_SIZE];
    return mac_of(bytes, size, found) && memcmp(found, mac, MAC_SIZE) == 0;
}

/* --- opening ------------------------------------------------------------------------------------
 */

static uint64_t hash_text(uint64_t hash, const char *text)
{
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
    return hash;
}

/* FOLDER/decoder-BF16-0123456789abcdef.packed: one for each place, dtype and machine. */
static char *packed_path(const char *folder, const char *path, const struct header *header)
{
    char *real = realpath(path, NULL);
    if (!real)
        return NULL;
    uint64_t hash = hash_text(hash_text(NAME_HASH, real), header->identity);
    char *slash = strrchr(real, '/');
    *slash = '\0';
    const char *component = strrchr(real, '/') ? strrchr(real, '/') + 1 : "model";
    char *result = xasprintf("%s/%s-%s-%016llx.packed", folder, component, header->dtype,
                             (unsigned long long)hash);
    free(real);
    return result;
}

/* Of the names and shapes, and of pages of the data; the first and the last among them. */
static void digest_source(const struct safetensors *weights, unsigned char out[DIGEST_SIZE])
{
    struct safetensors_source source = safetensors_source(weights);
    bool whole = source.size <= WHOLE_MAX;
    const unsigned char *data =
        safetensors_count(weights) ? safetensors_at(weights, 0)->data : NULL;
    size_t first = data && !whole ? (size_t)(data - source.bytes) : source.size;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool good = context && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1 &&
                EVP_DigestUpdate(context, source.bytes, first) == 1;
    for (uint64_t i = 0; good && !whole && i < SAMPLES; i++) {
        uint64_t at = (source.size - PAGE) * i / (SAMPLES - 1);
        good = EVP_DigestUpdate(context, source.bytes + at, PAGE) == 1;
    }
    BUG_ON(!good || EVP_DigestFinal_ex(context, out, NULL) != 1);
    EVP_MD_CTX_free(context);
}

static void wanted_header(struct header *header, const struct safetensors *weights,
                          enum dtype dtype)
{
    struct safetensors_source source = safetensors_source(weights);
    *header = (struct header){.magic = MAGIC,
                              .source_bytes = source.size,
                              .source_s = source.changed.tv_sec,
                              .source_ns = source.changed.tv_nsec};
    digest_source(weights, header->source_digest);
    snprintf(header->dtype, sizeof(header->dtype), "%s", dtype_name(dtype));
    device_identity(header->identity, sizeof(header->identity));
}

static const struct entry *entries_of(const struct store *store)
{
    return (const struct entry *)(store->map + PAGE);
}

/* NULL, or what is wrong with the mapping. */
static const char *check_map(const struct store *store)
{
    const struct header *header = (const struct header *)store->map;
    if (store->map_bytes < PAGE || !mac_holds(header, offsetof(struct header, mac), header->mac))
        return "damaged";
    if (memcmp(header, &store->wanted, offsetof(struct header, layers)) != 0)
        return "of other weights";
    if (header->file_bytes != store->map_bytes || header->layers > LAYERS_MAX ||
        header->layers * sizeof(struct entry) > store->map_bytes - PAGE)
        return "not whole";
    return mac_holds(entries_of(store), header->layers * sizeof(struct entry), header->index_mac)
               ? NULL
               : "damaged";
}

static void unmap(struct store *store)
{
    if (store->map)
        munmap(store->map, store->map_bytes);
    store->map = NULL;
}

/* NULL, or why the file is not to be trusted. */
static const char *check_status(const struct stat *status)
{
    if (!S_ISREG(status->st_mode))
        return "in no plain file";
    if (status->st_uid != geteuid() && status->st_uid != 0)
        return "another user's";
    if (status->st_mode & (S_IWGRP | S_IWOTH))
        return "open to other users' writing";
    return status->st_size > 0 ? NULL : "not whole";
}

/* Maps the file if there is one. NULL, or why what is there is of no use. */
static const char *map_file(struct store *store)
{
    struct stat status;
    int fd = open(store->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return NULL;
    if (fd < 0)
        return errno == ELOOP ? "in no plain file" : "not to be read";
    const char *wrong = fstat(fd, &status) == 0 ? check_status(&status) : "not to be read";
    void *map =
        wrong ? MAP_FAILED : mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED)
        return wrong ? wrong : "not to be mapped";
    store->map = map;
    store->map_bytes = (size_t)status.st_size;
    wrong = check_map(store);
    if (wrong)
        unmap(store);
    return wrong;
}

struct store *store_open(const char *folder, const char *path, const struct safetensors *weights,
                         enum dtype dtype, store_note note)
{
    struct header header;
    wanted_header(&header, weights, dtype);
    char *packed = packed_path(folder, path, &header);
    if (!packed) {
        say(note, "cannot keep packed weights of '%s': %s; every start packs anew", path,
            strerror(errno));
        return NULL;
    }
    struct store *store = xcalloc(1, sizeof(*store));
    store->users = 1;
    store->note = note;
    store->path = packed;
    store->wanted = header;
    const char *wrong = map_file(store);
    if (wrong)
        say(note, "the packed weights in '%s' are %s, and are packed anew", store->path, wrong);
    return store;
}

struct store *store_hold(struct store *store)
{
    store->users++;
    return store;
}

void store_release(struct store *store)
{
    if (!store || --store->users > 0)
        return;
    unmap(store);
    free(store->expected);
    free(store->path);
    free(store);
}

/* --- reading ------------------------------------------------------------------------------------
 */

static const struct entry *find_entry(const struct store *store, const char *name)
{
    const struct header *header = (const struct header *)store->map;
    const struct entry *entries = entries_of(store);
    for (uint64_t i = 0; i < header->layers; i++) {
        if (strncmp(entries[i].name, name, NAME_SIZE) == 0)
            return &entries[i];
    }
    return NULL;
}

static bool entry_inside(const struct store *store, const struct entry *entry)
{
    return entry->layout_bytes <= LAYOUT_SAVED_MAX && entry->offset <= store->map_bytes &&
           entry->bytes <= store->map_bytes - entry->offset && entry->offset % PAGE == 0;
}

/* The layer as it is in the mapping, if it is whole and like `plain`. */
static bool read_entry(const struct store *store, const struct entry *entry,
                       const struct layout *plain, struct store_layer *layer)
{
    struct layout *layout = NULL;
    if (entry_inside(store, entry) &&
        mac_holds(store->map + entry->offset, entry->bytes, entry->mac))
        layout = layout_restore(entry->layout, entry->layout_bytes);
    if (layout && layout_alike(layout, plain) && layout_bytes(layout) == entry->bytes) {
        *layer = (struct store_layer){.layout = layout, .data = store->map + entry->offset};
        return true;
    }
    layout_free(layout);
    return false;
}

bool store_find(struct store *store, const char *name, const struct layout *plain,
                struct store_layer *layer)
{
    if (!store->map)
        return false;
    const struct entry *entry = find_entry(store, name);
    if (entry && read_entry(store, entry, plain, layer))
        return true;
    say(store->note, "the packed weights of '%s' in '%s' are %s: removed", name, store->path,
        entry ? "damaged" : "missing");
    unlink(store->path); /* for the next start; this one is not of one piece any more */
    store->dropped = true;
    return false;
}

/* --- writing ------------------------------------------------------------------------------------
 */

void store_expect(struct store *store, const char *name, struct packed *packed)
{
    if (store->count == store->capacity) {
        store->capacity = store->capacity ? 2 * store->capacity : 64;
        store->expected = xrealloc(store->expected, store->capacity * sizeof(*store->expected));
    }
    struct expected *expected = &store->expected[store->count++];
    *expected = (struct expected){.packed = packed};
    BUG_ON(snprintf(expected->name, sizeof(expected->name), "%s", name) >= NAME_SIZE);
}

void store_forget(struct store *store, const struct packed *packed)
{
    for (size_t i = 0; i < store->count; i++)
        store->dropped |= store->expected[i].packed == packed;
}

static int make_folders(const char *path)
{
    char *part = xstrdup(path);
    int rc = 0;
    for (char *slash = strchr(part + 1, '/'); slash && rc == 0; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        rc = mkdir(part, 0700) == 0 || errno == EEXIST ? 0 : -1;
        *slash = '/';
    }
    free(part);
    return rc;
}

static int write_at(int fd, const void *bytes, size_t size, uint64_t offset)
{
    const char *place = bytes;
    while (size > 0) {
        ssize_t written = pwrite(fd, place, size, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return -1;
        place += written;
        offset += (uint64_t)written;
        size -= (size_t)written;
    }
    return 0;
}

static uint64_t page_up(uint64_t offset)
{
    return (offset + PAGE - 1) / PAGE * PAGE;
}

/* Fills in an entry and writes its data. */
static int write_layer(int fd, struct entry *entry, const struct expected *expected,
                       uint64_t *offset)
{
    struct store_layer layer = packed_settled(expected->packed);
    snprintf(entry->name, sizeof(entry->name), "%s", expected->name);
    entry->offset = page_up(*offset);
    entry->bytes = layout_bytes(layer.layout);
    entry->layout_bytes = layout_save(layer.layout, entry->layout);
    *offset = entry->offset + entry->bytes;
    if (entry->layout_bytes == 0 || !mac_of(layer.data, entry->bytes, entry->mac)) {
        errno = ENOTSUP;
        return -1;
    }
    return write_at(fd, layer.data, entry->bytes, entry->offset);
}

static int write_content(const struct store *store, int fd)
{
    struct header header = store->wanted;
    size_t index_bytes = store->count * sizeof(struct entry);
    struct entry *entries = xcalloc(store->count, sizeof(*entries));
    uint64_t offset = PAGE + index_bytes;
    int rc = 0;
    for (size_t i = 0; i < store->count && rc == 0; i++)
        rc = write_layer(fd, &entries[i], &store->expected[i], &offset);
    header.layers = store->count;
    header.file_bytes = offset;
    if (rc == 0 && (!mac_of(entries, index_bytes, header.index_mac) ||
                    !mac_of(&header, offsetof(struct header, mac), header.mac)))
        rc = -1;
    if (rc == 0 && (rc = write_at(fd, entries, index_bytes, PAGE)) == 0 &&
        (rc = write_at(fd, &header, sizeof(header), 0)) == 0)
        rc = fsync(fd);
    free(entries);
    return rc;
}

/* Under the lock: a temporary file, then its name. One of a writer that died is in the way. */
static int write_file(const struct store *store)
{
    char *temporary = xasprintf("%s.new", store->path);
    unlink(temporary);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    int rc = fd < 0 ? -1 : write_content(store, fd);
    if (fd >= 0 && close(fd) != 0)
        rc = -1;
    if (rc == 0)
        rc = rename(temporary, store->path);
    int cause = errno;
    if (rc != 0 && fd >= 0)
        unlink(temporary);
    free(temporary);
    errno = cause;
    return rc;
}

/* The lock's descriptor; -1 with EWOULDBLOCK when another process writes. */
static int lock_file(const struct store *store)
{
    char *path = xasprintf("%s.lock", store->path);
    int flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC;
    int fd = make_folders(path) == 0 ? open(path, flags, 0600) : -1;
    free(path);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int cause = errno;
        close(fd);
        errno = cause;
        return -1;
    }
    return fd;
}

/* Every layer's weights become the mapping's, where that has them as they are. */
static void adopt(struct store *store)
{
    for (size_t i = 0; i < store->count; i++) {
        const struct entry *entry = find_entry(store, store->expected[i].name);
        struct layout *mine = packed_settled(store->expected[i].packed).layout;
        struct store_layer layer;
        if (!entry || !read_entry(store, entry, mine, &layer))
            continue;
        if (layout_same(layer.layout, mine))
            packed_adopt(store->expected[i].packed, layer.data);
        layout_free(layer.layout);
    }
    malloc_trim(0); /* else the C library keeps what was packed */
}

static void write_all(struct store *store)
{
    int lock = lock_file(store);
    if (lock < 0 && errno == EWOULDBLOCK)
        return; /* another process writes the same */
    if (lock >= 0)
        map_file(store); /* another process may have written since */
    int rc = lock < 0 ? -1 : store->map ? 0 : write_file(store);
    if (rc != 0)
        say(store->note, "cannot keep packed weights in '%s': %s; every start packs anew",
            store->path, strerror(errno));
    else if (!store->map)
        map_file(store);
    if (store->map)
        adopt(store);
    if (lock >= 0)
        close(lock);
}

void store_settled(struct store *store)
{
    if (++store->settled == store->count && !store->dropped)
        write_all(store);
}
