#!/usr/bin/env bash
# With Redis stopped jobs still finish; their status catches up when it is back.
source "$(dirname "$0")/lib.sh"
use_cluster

job "$RUN-before" "a red heart" '"steps": {"prior": 2, "decoder": 500}'
within 60 state_is "$RUN-before" running || fail "the first job does not run"
cluster stop redis
job "$RUN-during" "a blue star"
within 240 has_result "$RUN-before" || fail "the job that ran when Redis stopped did not finish"
within 240 has_result "$RUN-during" || fail "the job submitted without Redis did not finish"
for id in before during; do
  expect "state of $id" "$(one_result "$RUN-$id" | jq -r .state)" succeeded
done
cluster start redis
for id in before during; do
  await_state "$RUN-$id" succeeded
  expect "images_done of $id" "$(field "$RUN-$id" images_done)" 1
  expect "results of $id" "$(field "$RUN-$id" results | jq -r '.[0]')" "$(one_result "$RUN-$id" | jq -r '.images[0].uri')"
done
job "$RUN-after" "a green circle"
await_state "$RUN-after" succeeded
