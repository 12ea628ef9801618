/* SPDX-License-Identifier: Apache-2.0 */
/* The loop of unclip-webhooks: final records in, POST requests out. */
#ifndef UNCLIP_WEBHOOKS_WEBHOOKS_H
#define UNCLIP_WEBHOOKS_WEBHOOKS_H

#include <signal.h>

#include "common/config.h"
#include "common/err.h"
#include "webhooks/sign.h"

/* Runs until *stop. Errors: what Kafka cannot recover from. */
int webhooks_run(const struct config *config, const struct secrets *secrets,
                 const volatile sig_atomic_t *stop, struct err *err);

#endif
