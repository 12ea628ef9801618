/* SPDX-License-Identifier: Apache-2.0 */
/* The command line that makes a picture again. Pure. */
#ifndef UNCLIP_CLIENT_INFO_H
#define UNCLIP_CLIENT_INFO_H

#include <jansson.h>

/* "unclip generate 'a red heart' --seed 42 … -o out" of a job record; pictures that only its maker
   had are PICTURE. Owned. */
char *info_command_line(const json_t *request);

#endif
