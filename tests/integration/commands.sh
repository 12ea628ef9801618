#!/usr/bin/env bash
# A command for each kind of job: through the queue, and in one process; both give the same bytes.
source "$(dirname "$0")/lib.sh"
use_cluster
unclip=$UNCLIP_BIN/unclip
heart=$WORK/heart.png star=$WORK/star.png
small=(--size 64 --seed 3 --steps-decoder 2)

"$unclip" generate "a red heart" --size 64 --seed 1 --steps-prior 2 --steps-decoder 3 -q -o "$WORK/made"
mv "$WORK/made/0.png" "$heart"
"$unclip" generate "a blue star" --size 64 --seed 2 --steps-prior 2 --steps-decoder 3 -q -o "$WORK/made"
mv "$WORK/made/0.png" "$star"

# both NAME EXTENSION COUNT COMMAND...: runs it both ways, as job NAME and with --local; compares all results
both() {
  local name=$1 extension=$2 count=$3 i
  shift 3
  "$unclip" "$@" --id "$RUN-$name" --wait -o "$WORK/queue" >"$WORK/said" || fail "$name does not go through the queue"
  expect "id that $name prints" "$(cat "$WORK/said")" "$RUN-$name"
  "$unclip" "$@" --local -q -o "$WORK/$name" >"$WORK/said" || fail "$name does not go without a cluster"
  expect "results of $name" "$(wc -l <"$WORK/said")" "$count"
  for ((i = 0; i < count; i++)); do
    cmp "$WORK/$name/$i.$extension" "$WORK/queue/$RUN-$name-$i.$extension" || fail "$name: queue and --local differ"
  done
  expect "type of $name" "$(field "$RUN-$name" type)" "$1"
}

both variation png 2 variation "$heart" "${small[@]}" -n 2
both inversion webp 1 variation "$heart" "${small[@]}" --start inversion --sampler-decoder ddim --eta-decoder 0.5 \
  --format webp --quality 80
both frames png 3 interpolate "$heart" "$star" "${small[@]}" --frames 3
both fusion png 1 interpolate "$heart" "text:a blue star" "$star" "${small[@]}" --steps-prior 2 --weight 1,2,0.5
both begun png 1 interpolate "$heart" "$star" "${small[@]}" --image "$heart" --start picture --strength 0.6
both text-diff png 1 text-diff "$heart" --from "a red heart" --to "a blue heart" --theta 0.6 "${small[@]}"
both upscale png 1 upscale "$heart" --size 256 --seed 3 --steps-upsampler-1 2
both embed safetensors 2 embed "$heart" "text:a red heart"
both npy npy 1 embed "$star" --format npy

# edit: the mask is white where the picture is
"$unclip" generate "a white square" --size 64 --seed 1 --prior none --steps-decoder 1 -q -o "$WORK/mask"
both edit png 1 edit "$heart" "a blue heart" --mask "$WORK/mask/0.png" --mask-mode white --feather 2 "${small[@]}" \
  --steps-prior 2 --resample 1

# score: the best first, both ways alike, and the embeddings' cosine
"$unclip" score "$heart" "$star" --prompt "a red heart" --id "$RUN-score" --wait | tail -n +2 >"$WORK/ranking"
expect "lines of a ranking" "$(wc -l <"$WORK/ranking")" 2
sort -rn "$WORK/ranking" | cmp - "$WORK/ranking" || fail "the best is not the first"
"$unclip" score "$heart" "$star" --prompt "a red heart" --local -q | cmp - "$WORK/ranking" || fail "scores differ"

# sheets: through the queue and without it
"$unclip" submit "a red heart" --n 3 "${small[@]}" --steps-prior 2 --wait --grid "$WORK/q.png" --columns 3 \
  --animation "$WORK/q.webp" --frame-ms 90 >/dev/null
"$unclip" generate "a red heart" --n 3 "${small[@]}" --steps-prior 2 -q -o "$WORK/three" --grid "$WORK/l.png" --columns 3 \
  --animation "$WORK/l.webp" --frame-ms 90 >/dev/null
expect "size of a sheet" "$(png_size "$WORK/q.png")" 196x64
cmp "$WORK/q.png" "$WORK/l.png" || fail "the sheets differ"
cmp "$WORK/q.webp" "$WORK/l.webp" || fail "the animations differ"
expect "frames of the animation" "$(grep -ao ANMF "$WORK/q.webp" | wc -l)" 3

# best_of keeps the best, through the queue too: the others stay stored
"$unclip" generate "a red heart" --n 1 --best-of 3 "${small[@]}" --steps-prior 2 -q -o "$WORK/best" --json >"$WORK/json"
expect "kept pictures" "$(jq '[.images[] | select(.path)] | length' "$WORK/json")" 1
expect "the kept one is the best" "$(jq '([.images[].score] | max) == (.images[] | select(.path)).score' "$WORK/json")" true

best=(--n 2 --best-of 4 "${small[@]}" --steps-prior 2)
"$unclip" submit "a red heart" "${best[@]}" --id "$RUN-best" --wait -o "$WORK/queue" --grid "$WORK/q.png" >/dev/null
"$unclip" generate "a red heart" "${best[@]}" -q -o "$WORK/two" --grid "$WORK/l.png" >"$WORK/said"
expect "stored pictures" "$(field "$RUN-best" results | jq 'map(strings) | length')" 4
expect "kept pictures" "$(wc -l <"$WORK/said")" 2
expect "brought pictures" "$(find "$WORK/queue" -name "$RUN-best-*.png" -printf '%f\n' | wc -l)" 2
expect "order of the best" "$(sed 's|.*/||; s|\.png$||' "$WORK/said" | jq -sc .)" "$(field "$RUN-best" best)"
for path in "$WORK"/two/*.png; do
  cmp "$path" "$WORK/queue/$RUN-best-${path##*/}" || fail "best_of: queue and --local differ"
done
cmp "$WORK/q.png" "$WORK/l.png" || fail "the sheets of the best differ"
"$unclip" status "$RUN-best" | grep -qF "4 of 4 done; the best 2:" || fail "the status does not say which are the best"

# a prompt that is too long: what became of its end
for overflow in truncate split; do
  "$unclip" generate "$(printf 'red %.0s' {1..100})" --overflow $overflow --prior none --size 64 --steps-decoder 1 -q \
    -o "$WORK/long" >/dev/null 2>"$WORK/$overflow"
done
grep -q "tokens were cut" "$WORK/truncate" || fail "--local does not say that the prompt was cut"
grep -q "tokens were read apart" "$WORK/split" || fail "--local does not say that the prompt was read apart"

# a file too large for the record goes by the store
{ cat "$heart"; head -c 600000 /dev/zero; } >"$WORK/large.png"
"$unclip" variation "$WORK/large.png" "${small[@]}" --id "$RUN-large" --wait -o "$WORK/queue" >/dev/null
"$unclip" variation "$WORK/large.png" "${small[@]}" --local -q -o "$WORK/large" >/dev/null
expect "pixels" "$(pixels_of "$WORK/large/0.png")" "$(pixels_of "$WORK/queue/$RUN-large-0.png")"
digest=$(sha256sum <"$WORK/large.png" | cut -d' ' -f1)
cmp "$WORK/large.png" "$UNCLIP_ARTIFACTS/uploads/$digest.png" || fail "the upload is not in the store"

# exits STATUS WORDS COMMAND...: with that status, and these words on stderr
exits() {
  local wanted=$1 words=$2 result=0
  shift 2
  "$unclip" "$@" >"$WORK/said" 2>"$WORK/err" || result=$?
  expect "exit status of '$*'" $result "$wanted"
  grep -qF -- "$words" "$WORK/err" || fail "'$*' does not say '$words' but '$(cat "$WORK/err")'"
}
exits 2 "--theta is not for upscale, but for text-diff" upscale "$heart" --theta 1
exits 2 "--size is not for embed" embed "$heart" --size 64
exits 2 "needs --from and --to" text-diff "$heart" --from a --wait
exits 2 "needs --prompt" score "$heart"
exits 2 "--weight is '1', it must be 2 numbers" interpolate "$heart" "$star" --weight 1
exits 2 "--grid needs --wait" variation "$heart" --grid "$WORK/x.png"
exits 2 "--grid is 'x', it must end in" variation "$heart" --local --grid x
exits 2 "--id is for a cluster's jobs" variation "$heart" --local --id x
exits 2 "--webhook is for a cluster's jobs" variation "$heart" --local --webhook https://example.org
exits 2 "'/webhook'" variation "$heart" --webhook example.org
exits 2 "--quiet needs --local" variation "$heart" -q
exits 2 "'/inputs/1' is a text" score "$heart" text:x --prompt y
exits 2 "which needs '/image'" interpolate "$heart" "$star" --start picture
exits 1 "cannot open '$WORK/none.png'" variation "$WORK/none.png"
echo "no picture" >"$WORK/words.png"
exits 1 "'$WORK/words.png' is no picture that unclip reads" variation "$WORK/words.png"
exits 1 "nothing is to be painted" edit "$heart" "a star" --local --size 64 -o "$WORK/no"
