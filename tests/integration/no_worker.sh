#!/usr/bin/env bash
# A stage without a worker: its jobs say so, its lag is seen, and both go when a worker comes.
source "$(dirname "$0")/lib.sh"
use_cluster

status() { "$UNCLIP_BIN/unclip" status --json "$1"; }
stage() { "$UNCLIP_BIN/unclip" stages --json | jq -c --arg stage "$1" '.[] | select(.stage == $stage)'; }
waiting_is() { [[ $(status "$1" | jq -r .waiting) == "$2" ]]; }
missing_is() { [[ $(redis HGET unclip:queue no_worker) == "$1" ]]; }

within 60 missing_is '' || fail "stages without a worker: '$(redis HGET unclip:queue no_worker)'"
expect "workers of prior" "$(stage prior | jq -c '[.workers[].slot]')" '["prior-0"]'
lag_is() { [[ $(stage prior | jq -c .lag) == "$1" ]]; }
within 60 lag_is '{"interactive":0,"bulk":0}' || fail "the idle stage is $(stage prior)"

cluster stop prior-0
restore() {
  local result=$?
  set +e
  [[ -n ${OWN_CLUSTER:-} ]] || cluster up
  (exit "$result")
  finish
}
trap restore EXIT
within 60 missing_is prior || fail "stages without a worker: '$(redis HGET unclip:queue no_worker)', not prior"
job "$RUN" "a red heart"
job "$RUN-bulk" "a red heart" '"class": "bulk"'
within 60 waiting_is "$RUN" "no worker for stage prior" || fail "the job says $(status "$RUN")"
grep -q 'waiting .* no worker for stage prior' <<<"$("$UNCLIP_BIN/unclip" status "$RUN")" || fail "status does not say it"
behind() { stage prior | jq -e '.lag | .interactive > 0 and .bulk > 0' >/dev/null; }
within 60 behind || fail "the stage is $(stage prior)"
expect "its workers" "$(stage prior | jq -c .workers)" '[]'
grep -qE '^prior +[12] +[12] +0 ' <<<"$("$UNCLIP_BIN/unclip" stages)" || fail "the table is $("$UNCLIP_BIN/unclip" stages)"

cluster up
within 60 missing_is '' || fail "stages without a worker: '$(redis HGET unclip:queue no_worker)'"
await_state "$RUN" succeeded
await_state "$RUN-bulk" succeeded
expect "what it waits for" "$(status "$RUN" | jq .waiting)" null
within 60 lag_is '{"interactive":0,"bulk":0}' || fail "the stage is $(stage prior)"
