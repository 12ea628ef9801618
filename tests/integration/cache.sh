#!/usr/bin/env bash
# A second job with the same prompt computes no text embedding.
source "$(dirname "$0")/lib.sh"
use_cluster

counter() { redis HGET unclip:stage:text-encode "$1" | sed 's/^$/0/'; }

# the counters are written after the task is handed on
is_counted() { (($(counter "$1") >= $2)); }

prompt="a red heart $RUN"
computed=$(counter computed) hits=$(counter cache_hits)
job "$RUN-1" "$prompt"
await_state "$RUN-1" succeeded
within 60 is_counted computed $((computed + 1)) || fail "the first prompt was not counted"
job "$RUN-2" "$prompt" '"seed": 2'
await_state "$RUN-2" succeeded
within 60 is_counted cache_hits $((hits + 1)) || fail "no cache hit was counted"
expect "prompts computed" "$(counter computed)" $((computed + 1))

# what comes from the cache makes the same picture as what was computed
job "$RUN-3" "$prompt"
await_state "$RUN-3" succeeded
expect "sha256 of the picture" "$(one_result "$RUN-3" | jq -r '.images[0].sha256')" \
  "$(one_result "$RUN-1" | jq -r '.images[0].sha256')"
