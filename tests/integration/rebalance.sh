#!/usr/bin/env bash
# Decoders join and leave while jobs wait: what is computed twice is at most the batch that each
# worker had in hand when partitions moved, and it is counted.
source "$(dirname "$0")/lib.sh"
use_cluster
readonly JOBS=36 BATCH=2

counter() { redis HGET unclip:stage:decoder "$1" | sed 's/^$/0/'; }
decoded() {
  records unclip.events | jq -r --arg run "$RUN-" 'select(.job | startswith($run)) | select(.stage == "decoder") | .job'
}
decoded_at_least() { (($(decoded | wc -l) >= $1)); }

UNCLIP_BATCH=$BATCH cluster restart decoder-0
computed=$(counter computed) wasted=$(counter wasted)
for ((i = 0; i < JOBS; i++)); do
  job "$RUN-$i" "a red heart $i" '"steps": {"prior": 2, "decoder": 60}'
done
# three moves, each while there is still work for those that stay
moves=0
for workers in 2 3 1; do
  within 200 decoded_at_least $((moves * JOBS / 6 + 2)) || fail "the decoders do nothing"
  UNCLIP_BATCH=$BATCH cluster scale decoder "$workers"
  moves=$((moves + 1))
done
before=$(decoded | wc -l)
((before < JOBS)) || fail "all jobs were done before the last move"
within 400 decoded_at_least $JOBS || fail "only $(decoded | wc -l) of $JOBS pictures were decoded"
for ((i = 0; i < JOBS; i++)); do await_state "$RUN-$i" succeeded; done

expect "times a picture was decoded" "$(decoded | wc -l)" $JOBS
expect "pictures decoded" "$(decoded | sort -u | wc -l)" $JOBS
all_counted() { (($(counter computed) - computed >= JOBS)); }
within 20 all_counted || fail "only $(($(counter computed) - computed)) of $JOBS pictures were counted"
expect "pictures computed for good" $(($(counter computed) - computed)) $JOBS
vain=$(($(counter wasted) - wasted)) most=$((BATCH * (1 + 2)))
printf '%d pictures were computed in vain, by %d moves of batches of %d\n' "$vain" $moves $BATCH
# from 1 to 2 and from 2 to 3 those that stay can lose their batch; from 3 to 1 those that go finish theirs
((vain <= most)) || fail "$vain pictures were computed in vain, at most $most can have been in hand"
cluster restart decoder-0
