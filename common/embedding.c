/* SPDX-License-Identifier: Apache-2.0 */
/* Embeddings as files; see embedding.h. The .npy form: numpy/lib/format.py. */
#include "common/embedding.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/safetensors.h"

#define NPY_HEAD 128 /* a multiple of 64, in which the longest description has room */

static int to_npy(const float *embed, int dim, void **bytes, size_t *size, struct err *err)
{
    static const char magic[] = "\x93NUMPY\x01"; /* and a 0: version 1.0 */
    static const size_t fixed = sizeof magic + 2;
    *size = NPY_HEAD + (size_t)dim * sizeof *embed;
    char *out = malloc(*size);
    if (!out)
        return err_set(err, ERR_OUT_OF_MEMORY, "no memory for an embedding");
    memset(out, ' ', NPY_HEAD);
    memcpy(out, magic, sizeof magic);
    out[sizeof magic] = (char)(NPY_HEAD - fixed);
    out[sizeof magic + 1] = 0;
    int length = snprintf(out + fixed, NPY_HEAD - fixed,
                          "{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }", dim);
    out[fixed + (size_t)length] = ' ';
    out[NPY_HEAD - 1] = '\n';
    memcpy(out + NPY_HEAD, embed, (size_t)dim * sizeof *embed);
    *bytes = out;
    return 0;
}

int embedding_encode(const struct task *task, const float *embed, int dim, void **bytes,
                     size_t *size, struct err *err)
{
    for (int i = 0; i < dim; i++)
        if (!isfinite(embed[i]))
            return err_set(err, ERR_COMPUTE, "the embedding's value %d is not finite", i);
    if (task->output.format == FORMAT_NPY)
        return to_npy(embed, dim, bytes, size, err);
    if (task->output.format != FORMAT_SAFETENSORS)
        return err_set(err, ERR_INVALID_RECORD, "the output is '%s', which holds no embedding",
                       format_name(task->output.format));
    struct safetensors_entry entry = {
        .name = "embedding", .dtype = DTYPE_F32, .rank = 1, .dim = {dim}, .data = embed};
    struct safetensors_metadata_pair model = {"model", task->model};
    return safetensors_encode(&entry, 1, &model, 1, bytes, size, err);
}
