#!/usr/bin/env bash
# Failures that another try may mend: the picture waits in the coordinator, across its death, and goes on
# where it failed, or from its start where nothing could be kept; after the limit it is a dead letter.
source "$(dirname "$0")/lib.sh"
use_cluster

restart() { env "${@:2}" "$ROOT/ops/cluster" restart "$1"; }
events_of() { records unclip.events | jq -c --arg id "$1" 'select(.job == $id)'; }
stages_of() { events_of "$1" | jq -r 'select(.image == 0) | "\(.stage):\(.type):\(.attempt // 0)"' | xargs; }
# waits ID: for its next try
waits() { [[ -n $(field "$1" retry_at) ]]; }
# kept ID: tensors that wait with it
kept() { find "$UNCLIP_HOME/artifacts/$1" -name '*.safetensors'; }
gone() { [[ -z $(kept "$1") ]]; }
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
within 60 gone "$RUN-twice" || fail "tensors stay behind: $(kept "$RUN-twice")"
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
letter=$(one_letter "$RUN-always")
expect "its dead letter" "$(jq -r '"\(.error_code) \(.stage) \(.headers.task | fromjson | .attempt)"' <<<"$letter")" \
  "io_error decoder 2"
[[ -s $(path_of "$(jq -r .headers.ref <<<"$letter")") ]] || fail "the dead letter's tensors are gone"
restart decoder-0
"$UNCLIP_BIN/unclip" dlq replay --job "$RUN-always" --json >"$WORK/replayed"
again=$(jq -r .id "$WORK/replayed")
[[ $again == "$RUN-always.0.retry-"* ]] || fail "its dead letter is not sent as a new job: $again"
await_state "$again" succeeded

# cancelled while it waits: what was kept for the next try goes
restart coordinator-0 UNCLIP_RETRY_BASE_MS=32000
restart decoder-0 "UNCLIP_FAULT=worker.before_compute:error@$RUN-wait,worker.before_compute:error@$RUN-cancelled"
job "$RUN-cancelled" "a red heart"
within 60 waits "$RUN-cancelled" || fail "$RUN-cancelled does not wait"
[[ -n $(kept "$RUN-cancelled") ]] || fail "nothing is kept for the next try"
"$UNCLIP_BIN/unclip" cancel "$RUN-cancelled" >/dev/null
await_state "$RUN-cancelled" cancelled
within 60 gone "$RUN-cancelled" || fail "the cancelled picture's tensors stay behind"

# coordinator_dies POINT: it does; how its start ends depends on how soon
coordinator_dies() {
  within 120 dead "$(pid_of coordinator-0)" || fail "the coordinator outlived coordinator.$1"
  grep -q " fault at $1\$" "$UNCLIP_HOME/logs/coordinator-0.log" || fail "the coordinator did not die at $1: $(cat "$WORK/said")"
}
start_coordinator() { UNCLIP_FAULT=coordinator.$1:kill cluster start coordinator-0 2>"$WORK/said" || true; }

# the coordinator dies while a picture waits, for 8 s at least: the next one knows when it is due
job "$RUN-wait" "a red heart"
within 60 waits "$RUN-wait" || fail "$RUN-wait does not wait"
at=$(field "$RUN-wait" retry_at)
kill_now coordinator-0
redis DEL "unclip:job:$RUN-wait" >/dev/null
start_coordinator before_begin
is_back() { [[ -n $(field "$RUN-wait" state) ]]; }
within 60 is_back || fail "the next coordinator does not know of $RUN-wait"
expect "when it is due" "$(field "$RUN-wait" retry_at)" "$at"

# and dies just when it is due, and so do those after it, around the transaction that writes the task anew
coordinator_dies before_begin
for point in after_produce before_commit after_commit; do
  start_coordinator $point
  coordinator_dies $point
done
cluster start coordinator-0
await_state "$RUN-wait" succeeded
expect "its way" "$(stages_of "$RUN-wait")" "text-encode:stage-finished:0 prior:stage-finished:0 \
decoder:picture-retry:0 decoder:picture-finished:1"
expect "its pixels" "$(picture_of "$RUN-wait")" "$(picture_of "$RUN-plain")"
cluster restart decoder-0
