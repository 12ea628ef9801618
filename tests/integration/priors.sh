#!/usr/bin/env bash
# All kinds of prior in one pool, with and without candidates: each makes pictures of its own, the same in any
# company, and from the cache too; a model without an autoregressive prior says so.
source "$(dirname "$0")/lib.sh"
unset UNCLIP_HOME # a cluster with one more model
export UNCLIP_MODELS=$WORK/models
mkdir "$UNCLIP_MODELS"
ln -s "$ROOT/models/emoji" "$UNCLIP_MODELS/emoji"
"$UNCLIP_BIN/golden-synth" "$ROOT/tests/golden/models/mini" "$UNCLIP_MODELS/mini"
use_cluster

# pixels ID IMAGE: a digest of a stored picture
pixels() { pixels_of "$(path_of "$(one_result "$1" | jq -r ".images[$2].uri")")"; }

kinds=(diffusion autoregressive none)
for kind in "${kinds[@]}"; do
  for candidates in 1 4; do
    job "$RUN-$kind-$candidates" "a red heart" \
      "\"model\": \"mini\", \"size\": 16, \"n\": 3, \"prior\": \"$kind\", \"prior_candidates\": $candidates"
  done
done
job "$RUN-lacking" "a red heart" '"prior": "autoregressive"'

for kind in "${kinds[@]}"; do
  for candidates in 1 4; do
    await_state "$RUN-$kind-$candidates" succeeded
    for image in 0 1 2; do pixels "$RUN-$kind-$candidates" $image; done >"$WORK/$kind-$candidates"
  done
done
expect "kinds and candidates that differ" "$(sort -u "$WORK/diffusion-1" "$WORK/autoregressive-1" "$WORK/none-1" | wc -l)" 9
for kind in diffusion autoregressive; do
  ! cmp -s "$WORK/$kind-1" "$WORK/$kind-4" || fail "the best of four $kind embeddings was always the first"
done
expect "candidates without draws" "$(cat "$WORK/none-4")" "$(cat "$WORK/none-1")"

# alone; then from the cache
for run in alone cached; do
  job "$RUN-$run" "a red heart" '"model": "mini", "size": 16, "seed": 2, "prior": "autoregressive", "prior_candidates": 4'
  await_state "$RUN-$run" succeeded
  expect "the picture made $run" "$(pixels "$RUN-$run" 0)" "$(sed -n 2p "$WORK/autoregressive-4")"
done

await_state "$RUN-lacking" failed
expect "reason" "$(field "$RUN-lacking" error_message)" "the model 'emoji' has no autoregressive prior"
