/* SPDX-License-Identifier: Apache-2.0 */
/* Tells model directories apart by what is in them, without reading gigabytes. */
#ifndef UNCLIP_WORKERS_FINGERPRINT_H
#define UNCLIP_WORKERS_FINGERPRINT_H

#include "common/digest.h"
#include "common/err.h"

#define FINGERPRINT_WHOLE_MAX (4u << 20) /* bytes: files up to this size are read whole */
#define FINGERPRINT_SAMPLES   256        /* pages read of a larger one, evenly spread */
#define FINGERPRINT_PAGE      4096

/* Adds the folder's files, in the order of their names: name, size, content or samples of it. A
   folder that is not there adds nothing. Error: ERR_IO. */
int fingerprint_folder(struct digest *digest, const char *path, struct err *err);

#endif
