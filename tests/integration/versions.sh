#!/usr/bin/env bash
# Records of a version that this unclip does not know are dead letters that say so, and stop nobody; but a
# coordinator doesn't take over what it would lose.
source "$(dirname "$0")/lib.sh"
use_cluster
readonly REASON="the record's version is 2, this unclip reads version 1"

# letter_of ID PREFIX: waits for its one dead letter
has_letter() { [[ -n $(dead_letters_of "$1") ]]; }
letter_of() {
  within 60 has_letter "$1" || fail "no dead letter of $1"
  expect "the dead letter of $1" "$(dead_letters_of "$1" | jq -r '"\(.error_code): \(.error_message)"')" "unsupported: $2"
}

# a job
produce "$RUN-job" <<<'{"version":2,"type":"text-to-image","prompt":"a red heart","mood":"calm"}'
letter_of "$RUN-job" "$REASON"
await_state "$RUN-job" failed

# a task, of a job that waits for it: its picture fails
cluster stop text-encode-0
job "$RUN-task" "a red heart"
within 60 state_is "$RUN-task" queued || fail "$RUN-task is not queued"
kcat -C -e -q -b "$KAFKA" -t unclip.tasks.text-encode -o beginning -f '%k %h\n' >"$WORK/tasks"
task=$(sed -n "s|^$RUN-task/0 task=||p" "$WORK/tasks" | jq -c '.version = 2 | .mood = "calm"')
[[ -n $task ]] || fail "no task of $RUN-task"
kcat -P -b "$KAFKA" -t unclip.tasks.text-encode -p 0 -k "$RUN-task/0" -H "task=$task" <<<"no tensors"
cluster start text-encode-0
letter_of "$RUN-task" "task: $REASON"
within 60 job_ended "$RUN-task" || fail "$RUN-task does not end"
one_result "$RUN-task" >/dev/null

# an event
job "$RUN-event" "a red heart"
kcat -P -b "$KAFKA" -t unclip.events -p 0 -k "$RUN-event" <<<"{\"version\":2,\"type\":\"praise\",\"job\":\"$RUN-event\"}"
praised() { records unclip.dead-letter | grep -q "praise.*$RUN-event"; }
within 60 praised || fail "no dead letter of a newer event"
await_state "$RUN-event" succeeded

# a live job's state: the coordinator ends rather than lose it, until a newer one has served it
state="{\"version\":2,\"id\":\"$RUN-state\",\"state\":\"pondering\"}"
kcat -P -b "$KAFKA" -t unclip.state -p 0 -k "$RUN-state" <<<"$state"
if cluster restart coordinator-0 2>"$WORK/said"; then
  refused() { cluster logs coordinator-0 | grep -q "job '$RUN-state' is a newer unclip's"; }
  within 30 refused || fail "the coordinator takes a newer job over"
fi
job "$RUN-after" "a red heart"
kcat -P -b "$KAFKA" -t unclip.state -p 0 -Z -K: <<<"$RUN-state:"
cluster up
await_state "$RUN-after" succeeded
