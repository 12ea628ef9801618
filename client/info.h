/* SPDX-License-Identifier: Apache-2.0 */
/* The command line that makes a picture again. Pure. */
#ifndef UNCLIP_CLIENT_INFO_H
#define UNCLIP_CLIENT_INFO_H

#include <jansson.h>
#include <stdio.h>

/* Writes `text` so that a POSIX shell reads it as one word. */
void shell_quote(FILE *out, const char *text);
/* "unclip generate 'a red heart' --seed 42 … -o out" of a job record. Owned. */
char *info_command_line(const json_t *request);

#endif
