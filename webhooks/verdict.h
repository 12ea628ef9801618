/* SPDX-License-Identifier: Apache-2.0 */
/* What an answer, or none, means for a delivery, and how long to wait for its next try. Pure. */
#ifndef UNCLIP_WEBHOOKS_VERDICT_H
#define UNCLIP_WEBHOOKS_VERDICT_H

#include <stdint.h>

#include "common/err.h"

enum verdict { VERDICT_DELIVERED, VERDICT_AGAIN, VERDICT_NEVER };

/*
 * Of a try that ended with `rc` and *err, as http_send() says, and that HTTP status (0: none came).
 * 2xx is delivered, however long the answer; 408, 425, 429, redirects, 5xx and what another try may
 * mend are tried again; all other answers, and what the address rules refuse, never. *err says why
 * unless it is delivered.
 */
enum verdict verdict_of(int rc, long status, struct err *err);

struct backoff {
    int64_t base_ms; /* longest wait before the second try; doubled for each next */
    int64_t max_ms;
    uint64_t state; /* of the generator: any seed */
};

/*
 * After the `tries`-th try (from 1): evenly between a half and the whole of the back-off, so that
 * what failed together does not come back together; but no less than the receiver asks for
 * (retry_after_s, 0: it does not), and never more than max_ms.
 */
int64_t backoff_wait(struct backoff *backoff, int tries, int64_t retry_after_s);

#endif
