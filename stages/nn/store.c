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

#define MAGIC        "unclip\npacked 1\n" /* names the format's version */
#define NAME_SIZE    512
#define MAC_SIZE     16
#define PAGE         4096
#define LAYERS_MAX   65536
#define NAME_HASH    0xcbf29ce484222325u /* FNV-1a */
#define IDENTITY_MAX 128

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

static void say(const struct store *store, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void say(const struct store *store, const char *format, ...)
{
    char text[1024];
    if (!store->note)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    store->note(text);
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

static bool wanted_header(struct header *header, const char *path, enum dtype dtype)
{
    struct stat status;
    if (stat(path, &status) != 0)
        return false;
    *header = (struct header){.magic = MAGIC,
                              .source_bytes = (uint64_t)status.st_size,
                              .source_s = status.st_mtim.tv_sec,
                              .source_ns = status.st_mtim.tv_nsec};
    snprintf(header->dtype, sizeof(header->dtype), "%s", dtype_name(dtype));
    device_identity(header->identity, sizeof(header->identity));
    return true;
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

static bool map_file(struct store *store)
{
    struct stat status;
    int fd = open(store->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    void *map = MAP_FAILED;
    if (fstat(fd, &status) == 0 && status.st_size > 0)
        map = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED)
        return false;
    store->map = map;
    store->map_bytes = (size_t)status.st_size;
    return true;
}

struct store *store_open(const char *folder, const char *path, enum dtype dtype, store_note note)
{
    struct header header;
    char *packed = wanted_header(&header, path, dtype) ? packed_path(folder, path, &header) : NULL;
    if (!packed)
        return NULL;
    struct store *store = xcalloc(1, sizeof(*store));
    store->users = 1;
    store->note = note;
    store->path = packed;
    store->wanted = header;
    const char *wrong = map_file(store) ? check_map(store) : NULL;
    if (wrong) {
        say(store, "the packed weights in '%s' are %s, and are packed anew", store->path, wrong);
        unmap(store);
    }
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

bool store_find(struct store *store, const char *name, struct store_layer *layer)
{
    const struct entry *entry = store->map ? find_entry(store, name) : NULL;
    if (!entry)
        return false;
    struct layout *layout = NULL;
    if (entry_inside(store, entry) &&
        mac_holds(store->map + entry->offset, entry->bytes, entry->mac))
        layout = layout_restore(entry->layout, entry->layout_bytes);
    if (layout && layout_bytes(layout) == entry->bytes) {
        *layer = (struct store_layer){.layout = layout, .data = store->map + entry->offset};
        return true;
    }
    layout_free(layout);
    say(store, "the packed weights of '%s' in '%s' are damaged: removed", name, store->path);
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
        rc = mkdir(part, 0777) == 0 || errno == EEXIST ? 0 : -1;
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

/* Under the lock: a temporary file, then its name. */
static int write_file(const struct store *store)
{
    char *temporary = xasprintf("%s.%ld", store->path, (long)getpid());
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
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
    int fd = make_folders(path) == 0 ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666) : -1;
    free(path);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int cause = errno;
        close(fd);
        errno = cause;
        return -1;
    }
    return fd;
}

/* Every layer's weights become the mapping's. */
static void adopt(struct store *store)
{
    if (!map_file(store))
        return;
    if (check_map(store)) {
        unmap(store);
        return;
    }
    for (size_t i = 0; i < store->count; i++) {
        const struct entry *entry = find_entry(store, store->expected[i].name);
        if (entry && entry_inside(store, entry))
            packed_adopt(store->expected[i].packed, store->map + entry->offset);
    }
    malloc_trim(0); /* else the C library keeps what was packed */
}

static void write_all(struct store *store)
{
    int lock = lock_file(store);
    if (lock < 0 && errno == EWOULDBLOCK)
        return; /* another process writes the same */
    int rc = lock < 0 ? -1 : write_file(store);
    if (rc != 0)
        say(store, "cannot keep packed weights in '%s': %s; every start packs anew", store->path,
            strerror(errno));
    if (rc == 0 && !store->map)
        adopt(store);
    if (lock >= 0)
        close(lock);
}

void store_settled(struct store *store)
{
    if (++store->settled == store->count && !store->dropped)
        write_all(store);
}
