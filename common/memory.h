/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small allocations, which die loudly: they never return NULL. Tensors, pictures and the bodies of
 * records do not use these; they are fallible and fail the task that asks for them. What is
 * returned is the caller's, who frees it with free().
 */
#ifndef UNCLIP_COMMON_MEMORY_H
#define UNCLIP_COMMON_MEMORY_H

#include <stddef.h>

void *xmalloc(size_t size) __attribute__((malloc, returns_nonnull));
void *xcalloc(size_t count, size_t size) __attribute__((malloc, returns_nonnull));
void *xrealloc(void *memory, size_t size) __attribute__((returns_nonnull));
char *xstrdup(const char *text) __attribute__((malloc, returns_nonnull));
char *xasprintf(const char *format, ...) __attribute__((format(printf, 1, 2), returns_nonnull));

#endif
