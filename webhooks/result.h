/* SPDX-License-Identifier: Apache-2.0 */
/* A record of unclip.results, as far as a webhook needs it. Pure. */
#ifndef UNCLIP_WEBHOOKS_RESULT_H
#define UNCLIP_WEBHOOKS_RESULT_H

#include "common/err.h"
#include "webhooks/window.h"

/*
 * Fills in a delivery of its record: whom to tell and where, WAITING, or SETTLED where the job asks
 * for nothing. An error leaves it without a URL: schema_validate()'s, of a record that asks for a
 * webhook and cannot be read.
 */
int result_read(struct delivery *delivery, struct err *err);

#endif
