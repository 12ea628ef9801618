#!/usr/bin/env bash
# A job for n pictures makes n, from seed, seed + 1, …; a picture's pixels depend neither on its company
# nor on the number of MPI ranks.
source "$(dirname "$0")/lib.sh"
use_cluster

# pixels ID IMAGE: a digest of a stored picture
pixels() { pixels_of "$(path_of "$(one_result "$1" | jq -r ".images[$2].uri")")"; }

three=$RUN-three
job "$three" "a red heart" '"n": 3, "seed": 100, "size": 1024'
await_state "$three" succeeded
result=$(one_result "$three")
expect images_total "$(field "$three" images_total)" 3
expect images_done "$(field "$three" images_done)" 3
expect seeds "$(jq -c '[.images[].seed]' <<<"$result")" '[100,101,102]'
while read -r uri; do
  expect "size of $uri" "$(png_size "$(path_of "$uri")")" 1024x1024
done < <(jq -r '.images[].uri' <<<"$result")
expect "number of different pictures" "$(for i in 0 1 2; do pixels "$three" $i; done | sort -u | wc -l)" 3

UNCLIP_MPI_RANKS=1 cluster restart upsampler-2-0
job "$RUN-alone" "a red heart" '"seed": 101, "size": 1024'
await_state "$RUN-alone" succeeded
cluster restart upsampler-2-0
expect "the picture made alone, on one rank" "$(pixels "$RUN-alone" 0)" "$(pixels "$three" 1)"

# one process with no servers makes the same
"$UNCLIP_BIN/unclip" generate "a red heart" --model "$UNCLIP_MODELS/emoji" --seed 101 --size 1024 --threads 1 \
  --steps-prior 2 --steps-decoder 2 --steps-upsampler-1 2 --steps-upsampler-2 2 -o "$WORK/out"
expect "the picture that 'unclip generate' makes" "$(pixels_of "$WORK/out/0.png")" "$(pixels "$three" 1)"
