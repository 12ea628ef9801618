#!/usr/bin/env bash
# Failures that another try may mend: the picture waits in the coordinator, across its death, and goes on
# where it failed, or from its start where nothing could be kept; after the limit it is a dead letter.
source "$(dirname "$0")/lib.sh"
use_cluster

pid_of() { cluster status --json | jq --arg name "$1" '.processes[] | select(.name == $name).pid'; }
restart() { env "${@:2}" "$ROOT/ops/cluster" restart "$1"; }
events_of() { records unclip.events | jq -c --arg id "$1" 'select(.job == $id)'; }
stages_of() { events_of "$1" | jq -r 'select(.image == 0) | "\(.stage):\(.type):\(.attempt // 0)"' | xargs; }
picture_of() { pixels_of "$(path_of "$(one_result "$1" | jq -r '.images[0].uri')")"; }

job "$RUN-plain" "a red heart" '"n": 2'
await_state "$RUN-plain" succeeded

# twice at the decoder: its input is kept, and the stages before it do not run again
restart coordinator-0 UNCLIP_RETRY_BASE_MS=200 UNCLIP_RETRY_LIMIT=2
restart decoder-0 "UNCLIP_FAULT=worker.before_compute:error@$RUN-twice:1,worker.before_compute:error-out_of_memory@$RUN-twice:2"
job "$RUN-twice" "a red heart"
await_state "$RUN-twice" succeeded
expect "its way" "$(stages_of "$RUN-twice")" "text-encode:stage-finished:0 prior:stage-finished:0 \
decoder:picture-retry:0 decoder:picture-retry:1 decoder:picture-finished:2"
expect "its pixels" "$(picture_of "$RUN-twice")" "$(picture_of "$RUN-plain")"
expect "attempts" "$(field "$RUN-twice" attempts)" 2
expect "retry_at" "$(field "$RUN-twice" retry_at)" ""
kept() { find "$UNCLIP_HOME/artifacts/$1" -name '*.safetensors'; }
expect "tensors that stay behind" "$(kept "$RUN-twice")" ""
expect "dead letters" "$(dead_letters_of "$RUN-twice")" ""

# the store fails for the picture and for the tensors: from the start
restart decoder-0 "UNCLIP_FAULT=worker.before_store:error@$RUN-store:1,worker.before_store:error@$RUN-store:2"
job "$RUN-store" "a red heart"
await_state "$RUN-store" succeeded
expect "its way" "$(stages_of "$RUN-store")" "text-encode:stage-finished:0 prior:stage-finished:0 \
decoder:picture-retry:0 text-encode:stage-finished:1 prior:stage-finished:1 decoder:picture-finished:1"
expect "its pixels" "$(picture_of "$RUN-store")" "$(picture_of "$RUN-plain")"

# always: after the limit one picture fails with a dead letter, and takes nobody along
restart decoder-0 "UNCLIP_FAULT=worker.before_compute:error@$RUN-always:1+"
job "$RUN-always" "a red heart"
job "$RUN-bystander" "a blue star"
await_state "$RUN-bystander" succeeded
await_state "$RUN-always" failed
expect "its error" "$(field "$RUN-always" error_message)" "tried 3 times: fault at before_compute"
expect "its way" "$(stages_of "$RUN-always")" "text-encode:stage-finished:0 prior:stage-finished:0 \
decoder:picture-retry:0 decoder:picture-retry:1 decoder:picture-retry:2"
letter=$(dead_letters_of "$RUN-always")
expect "its dead letter" "$(jq -r '"\(.error_code) \(.stage) \(.headers.task | fromjson | .attempt)"' <<<"$letter")" \
  "io_error decoder 2"
[[ -s $(path_of "$(jq -r .headers.ref <<<"$letter")") ]] || fail "the dead letter's tensors are gone"
restart decoder-0
"$UNCLIP_BIN/unclip" dlq replay --job "$RUN-always" --json >"$WORK/replayed"
again=$(jq -r .id "$WORK/replayed")
[[ $again == "$RUN-always.0.retry-"* ]] || fail "its dead letter is not sent as a new job: $again"
await_state "$again" succeeded

# the coordinator dies while a picture waits: the next one knows when it is due
restart coordinator-0 UNCLIP_RETRY_BASE_MS=8000
restart decoder-0 "UNCLIP_FAULT=worker.before_compute:error@$RUN-wait"
job "$RUN-wait" "a red heart"
# shellcheck disable=SC2317  # called by within
waits() { [[ -n $(field "$RUN-wait" retry_at) ]]; }
within 60 waits || fail "$RUN-wait does not wait"
at=$(field "$RUN-wait" retry_at)
kill -9 "$(pid_of coordinator-0)"
redis DEL "unclip:job:$RUN-wait" >/dev/null
cluster up
within 30 waits || fail "the next coordinator does not know of the wait"
expect "when it is due" "$(field "$RUN-wait" retry_at)" "$at"
await_state "$RUN-wait" succeeded
expect "its way" "$(stages_of "$RUN-wait")" "text-encode:stage-finished:0 prior:stage-finished:0 \
decoder:picture-retry:0 decoder:picture-finished:1"
expect "its pixels" "$(picture_of "$RUN-wait")" "$(picture_of "$RUN-plain")"

# cancelled while it waits: what was kept for the next try goes
restart coordinator-0 UNCLIP_RETRY_BASE_MS=60000
restart decoder-0 "UNCLIP_FAULT=worker.before_compute:error@$RUN-cancelled:1"
job "$RUN-cancelled" "a red heart"
# shellcheck disable=SC2317  # called by within
waits() { [[ -n $(field "$RUN-cancelled" retry_at) ]]; }
within 60 waits || fail "$RUN-cancelled does not wait"
[[ -n $(kept "$RUN-cancelled") ]] || fail "nothing is kept for the next try"
"$UNCLIP_BIN/unclip" cancel "$RUN-cancelled" >/dev/null
await_state "$RUN-cancelled" cancelled
gone() { [[ -z $(kept "$RUN-cancelled") ]]; }
within 60 gone || fail "the cancelled picture's tensors stay behind"

# and the coordinator dies just when it is due, around the transaction that writes the task anew
for point in before_begin after_produce before_commit after_commit; do
  id=$RUN-due-${point//_/-}
  restart coordinator-0 UNCLIP_RETRY_BASE_MS=2000
  restart decoder-0 "UNCLIP_FAULT=worker.before_compute:error@$id"
  job "$id" "a red heart"
  waits() { [[ -n $(field "$id" retry_at) ]]; }
  within 60 waits || fail "$id does not wait"
  if UNCLIP_FAULT=coordinator.$point:kill UNCLIP_RETRY_BASE_MS=2000 cluster restart coordinator-0 2>/dev/null; then
    PID=$(pid_of coordinator-0)
    dead() { ! kill -0 "$PID" 2>/dev/null; }
    within 30 dead || fail "the coordinator outlived coordinator.$point"
  fi
  cluster up
  await_state "$id" succeeded
  expect "its way" "$(stages_of "$id")" "text-encode:stage-finished:0 prior:stage-finished:0 \
decoder:picture-retry:0 decoder:picture-finished:1"
  one_result "$id" >/dev/null
done
cluster restart decoder-0 coordinator-0
