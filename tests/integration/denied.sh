#!/usr/bin/env bash
# The deny-list: a job that says what is on it is refused with its reason, or made with a notice; others are not touched.
source "$(dirname "$0")/lib.sh"
use_cluster

restore() {
  local result=$?
  unset UNCLIP_DENY_LIST UNCLIP_DENY_ACTION
  cluster restart coordinator-0
  return $result
}
trap 'restore && finish || finish' EXIT

printf '%s\n' '# what is not painted here' 'forbidden fruit' '/poi[s5]on/' >"$WORK/list"
export UNCLIP_DENY_LIST=$WORK/list
cluster restart coordinator-0

# denied NAME FIELD: ended at once, for that field; nothing tells what is on the list
denied() {
  await_state "$RUN-$1" failed
  expect "code of $1" "$(field "$RUN-$1" error_code)" content_denied
  expect "reason of $1" "$(field "$RUN-$1" error_message)" "'$2' says what is not allowed here"
  expect "pictures of $1" "$(one_result "$RUN-$1" | jq '.images | length')" 0
  expect "letter of $1" "$(one_letter "$RUN-$1" | jq -r .error_code)" content_denied
}

job "$RUN-words" "a bowl of Forbidden  FRUIT"
job "$RUN-pattern" "ＰＯＩ５ＯＮ in a bottle"
job "$RUN-negative" "a red heart" '"negative_prompt": "forbidden fruit"'
job "$RUN-fine" "a bowl of fruit, none forbidden"
denied words /prompt
denied pattern /prompt
denied negative /negative_prompt
await_state "$RUN-fine" succeeded
expect "notices of fine" "$(field "$RUN-fine" notices)" '[]'

export UNCLIP_DENY_ACTION=flag
cluster restart coordinator-0
job "$RUN-flagged" "a bowl of forbidden fruit"
await_state "$RUN-flagged" succeeded
expect "notices of flagged" "$(field "$RUN-flagged" notices)" '["'"'/prompt' says what is not allowed here"'"]'

# a list that cannot be read keeps the coordinator from starting, rather than let everything through
printf '/(unclosed/\n' >"$WORK/list"
if UNCLIP_START_SECONDS=20 cluster restart coordinator-0 2>"$WORK/refused"; then fail "a broken list is taken"; fi
grep -q 'list:1: the pattern fails' "$WORK/refused" "$UNCLIP_HOME/logs/coordinator-0.log" || fail "it does not say why"
