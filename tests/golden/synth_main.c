/* SPDX-License-Identifier: Apache-2.0 */
/* golden-synth: writes a test model from its manifests; see synth.h. */
#include "synth.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    char errtext[512];
    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: golden-synth MANIFEST_DIR OUT_DIR [f32|f16|bf16]\n");
        return 2;
    }
    if (synth_model_as(argv[1], argv[2], argv[3], errtext, sizeof errtext) < 0) {
        fprintf(stderr, "golden-synth: %s\n", errtext);
        return 1;
    }
    return 0;
}
