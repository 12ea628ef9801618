/* SPDX-License-Identifier: Apache-2.0 */
/* Text from outside for a person's terminal: nothing in it may steer the terminal. Pure. */
#ifndef UNCLIP_CLIENT_TEXT_H
#define UNCLIP_CLIENT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/*
 * Bytes of the first character of `text`, at least 1; `size` is text's and not 0. *harmless: it is
 * valid UTF-8 and no control character (U+0000 to U+001F, U+007F to U+009F).
 */
size_t text_step(const char *text, size_t size, bool *harmless);
/* Writes `text`, with a space in place of each character that is not harmless; `lines` keeps \n. */
void text_print(const char *text, bool lines, FILE *out);
/* The same in a table: at least `least` columns and, unless that is 0, at most `most`, then "…". */
void text_column(const char *text, int least, int most, FILE *out);
/* Writes `text` as one word of a POSIX shell: plain, 'quoted', or $'\033' (bash, zsh, POSIX 2024)
   where it has characters that are not harmless. */
void text_quote(const char *text, FILE *out);
/* Takes librdkafka's "(after 0ms in state CONNECT, …)" out, in place. */
void text_trim_kafka(char *text);

#endif
