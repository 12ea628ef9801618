#!/usr/bin/env bash
# The probe: a finished picture that looks like a concept is refused, made with a notice, or blurred; others, and
# jobs that make no picture, are not touched.
source "$(dirname "$0")/lib.sh"
use_cluster
unclip=$UNCLIP_BIN/unclip

restore() {
  local result=$?
  unset UNCLIP_PROBE UNCLIP_CONCEPTS UNCLIP_CONCEPT_ACTION
  cluster restart coordinator-0 image-encode-0
  return $result
}
trap 'restore && finish || finish' EXIT

# the picture itself, before anything is looked at: its score tells how near it is to its prompt
STEPS='steps: {prior: 5, decoder: 10}'
# heart NAME [MORE_JSON]
heart() {
  jq -nc "{version: 1, type: \"text-to-image\", prompt: \"a red heart\", size: 64, seed: 1, $STEPS} + {${2:-}}" | produce "$RUN-$1"
}
heart plain 'score: true'
await_state "$RUN-plain" succeeded
file() { path_of "$(one_result "$RUN-$1" | jq -r '.images[0].uri')"; }
notices() { field "$RUN-$1" notices; }
score=$(field "$RUN-plain" scores | jq '.[0]')

# the concepts are that prompt, with a threshold a little below, and one that nothing reaches
"$unclip" embed "text:a red heart" "text:a blue star" --local -q -o "$WORK/embeds"
"$ROOT/ops/concepts" "$WORK/concepts" 'red hearts' "$(jq -n "$score / 100 - 0.1")" "$WORK/embeds/0.safetensors" \
  star 1 "$WORK/embeds/1.safetensors"
export UNCLIP_PROBE=true UNCLIP_CONCEPTS=$WORK/concepts
cluster restart coordinator-0 image-encode-0

heart refused
jq -nc "{version: 1, type: \"text-to-image\", prompt: \"a blue star\", size: 64, seed: 1, $STEPS}" | produce "$RUN-star"
jq -nc '{version: 1, type: "embed", inputs: [{text: "a red heart"}]}' | produce "$RUN-embed"
jq -nc "{version: 1, type: \"upscale\", image: \"$(one_result "$RUN-plain" | jq -r '.images[0].uri')\", size: 256, seed: 1,
  steps: {\"upsampler-1\": 2}}" | produce "$RUN-upscale"
await_state "$RUN-refused" failed
why="the picture looks like 'red hearts', which is not allowed here"
expect "code of refused" "$(field "$RUN-refused" error_code)" content_denied
[[ $(field "$RUN-refused" error_message) == *"$why" ]] || fail "the reason is '$(field "$RUN-refused" error_message)'"
expect "letter of refused" "$(one_letter "$RUN-refused" | jq -r .error_code)" content_denied
! compgen -G "$(dirname "$(dirname "$(file plain)")")/$RUN-refused/0.png" || fail "the refused picture is in the store"
await_state "$RUN-star" succeeded
expect "notices of star" "$(notices star)" '[]'
expect "route of star" "$(one_result "$RUN-star" | jq -c '[.route[].stage]')" '["text-encode","prior","decoder","image-encode"]'
await_state "$RUN-embed" succeeded
# an upscale has no prompt, and is looked at all the same
await_state "$RUN-upscale" failed
expect "code of upscale" "$(field "$RUN-upscale" error_code)" content_denied

export UNCLIP_CONCEPT_ACTION=flag
cluster restart image-encode-0
heart flagged
await_state "$RUN-flagged" succeeded
expect "notices of flagged" "$(notices flagged)" "[\"a picture looks like 'red hearts'\"]"
expect "pixels of flagged" "$(pixels_of "$(file flagged)")" "$(pixels_of "$(file plain)")"

export UNCLIP_CONCEPT_ACTION=blur
cluster restart image-encode-0
heart blurred
await_state "$RUN-blurred" succeeded
expect "notices of blurred" "$(notices blurred)" "[\"a picture looks like 'red hearts' and was blurred\"]"
# what is left has little detail: it makes a smaller file
(($(wc -c <"$(file blurred)") < $(wc -c <"$(file plain)"))) || fail "the blurred picture is no smaller"
[[ $(pixels_of "$(file blurred)") != "$(pixels_of "$(file plain)")" ]] || fail "the picture is not blurred"

# concepts that cannot be read keep the worker from starting, rather than let everything through
cp "$WORK/embeds/0.safetensors" "$WORK/concepts"
if UNCLIP_START_SECONDS=20 cluster restart image-encode-0 2>"$WORK/failure"; then fail "broken concepts are taken"; fi
grep -q "concept 'embedding' has no threshold" "$WORK/failure" "$UNCLIP_HOME/logs/image-encode-0.log" || fail "it does not say why"
