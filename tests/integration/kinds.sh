#!/usr/bin/env bash
# Each kind of job as plain JSON, through the real queue, with the shipped model: its state, its results,
# its scores. Pictures come in as data URLs and as results of other jobs.
source "$(dirname "$0")/lib.sh"
use_cluster

picture() { python3 "$ROOT/tests/integration/picture.py" "$@"; }
data_url() { printf 'data:image/png;base64,%s' "$(base64 -w0 "$1")"; }

# kind NAME JSON: submits a quick job RUN-NAME of that kind
kind() { jq -nc "{version: 1, id: \"$RUN-$1\"} + $2" | produce "$RUN-$1"; }
# uri NAME IMAGE, file NAME IMAGE: of a job's result
uri() { one_result "$RUN-$1" | jq -r ".images[$2].uri"; }
file() { path_of "$(uri "$1" "$2")"; }
succeeds() { await_state "$RUN-$1" succeeded; }
# shown NAME FILTER WANTED: of the job's final record
shown() { expect "$2 of $1" "$(one_result "$RUN-$1" | jq -c "$2")" "$3"; }
# starts_with NAME HEX: the bytes of its first file
starts_with() { expect "the start of $1's file" "$(head -c $((${#2} / 2)) "$(file "$1" 0)" | od -An -tx1 | tr -d ' ')" "$2"; }

STEPS='steps: {decoder: 2}'
kind text "{type: \"text-to-image\", prompt: \"a red heart\", size: 64, seed: 7, steps: {prior: 2, decoder: 2}, score: true,
  preview: 1}"
succeeds text
expect "the preview's first bytes" "$(redis GET "unclip:preview:$RUN-text/0" | head -c 4)" RIFF
heart=$(uri text 0)
expect "size of the text's picture" "$(png_size "$(path_of "$heart")")" 64x64
(($(field "$RUN-text" scores | jq length) == 1)) || fail "no score of the text's picture"

picture make plain 64 "$WORK/plain.png"
picture make left 64 "$WORK/left.png"
picture make hole 64 "$WORK/hole.png"

# all at once: they share the pools
kind variation "{type: \"variation\", image: \"$heart\", prompt: \"a red heart\", n: 2, size: 64, seed: 1, $STEPS,
  score: true, output: {format: \"webp\"}}"
kind interpolate "{type: \"interpolate\", frames: 3, inputs: [{image: \"$heart\"}, {text: \"a blue star\"}],
  size: 64, seed: 1, steps: {prior: 2, decoder: 2}}"
kind edit "{type: \"edit\", image: \"$heart\", mask: \"$(data_url "$WORK/left.png")\", mask_mode: \"white\",
  prompt: \"a green leaf\", size: 64, seed: 1, resample: 0, steps: {prior: 2, decoder: 2}}"
kind hole "{type: \"edit\", image: \"$(data_url "$WORK/hole.png")\", prompt: \"a green leaf\", size: 64, seed: 1,
  resample: 0, steps: {prior: 2, decoder: 2}, output: {format: \"jpeg\", quality: 80}}"
kind text-diff "{type: \"text-diff\", image: \"$heart\", from: \"a red heart\", to: \"a blue heart\", size: 64, seed: 1, $STEPS}"
kind upscale "{type: \"upscale\", image: \"$heart\", from: 64, size: 256, seed: 1, steps: {\"upsampler-1\": 2},
  output: {format: \"avif\"}}"
kind embed "{type: \"embed\", inputs: [{image: \"$heart\"}, {text: \"a red heart\"}]}"
kind npy "{type: \"embed\", inputs: [{text: \"a red heart\"}], output: {format: \"npy\"}}"
kind score "{type: \"score\", prompt: \"a red heart\", inputs: [{image: \"$(data_url "$WORK/plain.png")\"}, {image: \"$heart\"}]}"

succeeds variation
shown variation '[.images[] | .width]' '[64,64]'
starts_with variation 52494646 # RIFF
[[ $(file variation 0) == *.webp ]] || fail "the variation is '$(file variation 0)'"
shown variation '[.images[].score | type]' '["number","number"]'
shown variation '.best | sort' '[0,1]'
shown variation '[.route[].stage]' '["text-encode","image-encode","decoder","image-encode"]'

succeeds interpolate
shown interpolate '.images | length' 3
expect "number of different frames" "$(for i in 0 1 2; do pixels_of "$(file interpolate $i)"; done | sort -u | wc -l)" 3
shown interpolate '[.route[].stage]' '["text-encode","prior","image-encode","decoder"]'

succeeds edit
picture same "$(path_of "$heart")" "$(file edit 0)" 32 64 || fail "the edit has touched what is kept"
! picture same "$(path_of "$heart")" "$(file edit 0)" 0 32 2>/dev/null || fail "the edit has painted nothing"
shown edit '.request.mask | endswith("/mask.png")' true
shown edit '.request.image' "\"$heart\""

succeeds hole
starts_with hole ffd8ff
shown hole '.request.image | endswith("/image.png")' true

succeeds text-diff
expect "size of the text-diff" "$(png_size "$(file text-diff 0)")" 64x64

succeeds upscale
shown upscale '[.images[0].width, (.images[0].uri | endswith("/0.avif"))]' '[256,true]'
shown upscale '[.route[].stage]' '["image-encode","upsampler-1"]'

succeeds embed
shown embed '[.images[] | has("width"), (.uri | endswith(".safetensors"))]' '[false,true,false,true]'
for i in 0 1; do
  expect "embedding $i" "$(tail -c +9 "$(file embed $i)" | head -c 200 | grep -ao '"embedding":{"dtype":"F32","shape":\[[0-9]*\]')" \
    "$(tail -c +9 "$(file embed 0)" | head -c 200 | grep -ao '"embedding":{"dtype":"F32","shape":\[[0-9]*\]')"
done

succeeds npy
starts_with npy 934e554d5059 # \x93NUMPY

succeeds score
shown score '[.images[] | has("width")]' '[false,false]'
shown score '.images[1].uri' "\"$heart\""
shown score '.images[1].sha256' "\"$(sha256sum <"$(path_of "$heart")" | cut -c1-64)\""
shown score '.images[0].uri | endswith("/input-0.png")' true
# the model's own picture of the prompt fits it better than a gradient does
shown score '.best' '[1,0]'

# no record but the job's own carries a picture
for topic in unclip.state unclip.results; do
  ! records "$topic" | grep -q 'base64,[A-Za-z0-9]' || fail "$topic has a picture in it"
done

# the heart's embedding was computed once, or twice where two batches met
(($(redis HGET unclip:stage:image-encode cache_hits) > 0)) || fail "no embedding of a picture came from the cache"
