#!/usr/bin/env bash
# A second job with the same prompt computes no text embedding.
source "$(dirname "$0")/lib.sh"
use_cluster

counter() { redis HGET unclip:stage:text-encode "$1" | sed 's/^$/0/'; }

prompt="a red heart $RUN"
job "$RUN-1" "$prompt"
await_state "$RUN-1" succeeded
computed=$(counter computed)
hits=$(counter cache_hits)
more_hits() { (($(counter cache_hits) > hits)); }
job "$RUN-2" "$prompt" '"seed": 2'
await_state "$RUN-2" succeeded
# the counters are written after the task is handed on
within 10 more_hits || fail "no cache hit was counted"
expect "prompts computed" "$(counter computed)" "$computed"

# what comes from the cache makes the same picture as what was computed
job "$RUN-3" "$prompt"
await_state "$RUN-3" succeeded
expect "sha256 of the picture" "$(one_result "$RUN-3" | jq -r '.images[0].sha256')" \
  "$(one_result "$RUN-1" | jq -r '.images[0].sha256')"
