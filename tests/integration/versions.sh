#!/usr/bin/env bash
# Records of a version that this unclip does not know are dead letters that say so, and stop nobody; but a
# coordinator doesn't take over what it would lose.
source "$(dirname "$0")/lib.sh"
use_cluster
readonly REASON="the record's version is 2, this unclip reads version 1"

# letter_of ID PREFIX: waits for its one dead letter
letter_of() {
  expect "the dead letter of $1" "$(one_letter "$1" | jq -r '"\(.error_code): \(.error_message)"')" "unsupported: $2"
}

# a job
produce "$RUN-job" <<<'{"version":2,"type":"text-to-image","prompt":"a red heart","mood":"calm"}'
letter_of "$RUN-job" "$REASON"
await_state "$RUN-job" failed

# a task, of a job that waits for it: its picture fails
cluster stop text-encode-0
job "$RUN-task" "a red heart"
within 60 state_is "$RUN-task" queued || fail "$RUN-task is not queued"
task_of() { read_topic unclip.tasks.text-encode '%k %h' | sed -n "s|^$RUN-task/0 task=||p" | jq -c '.version = 2 | .mood = "calm"'; }
has_task() { [[ -n $(task_of) ]]; }
within 60 has_task || fail "no task of $RUN-task"
task=$(task_of)
kcat -P -b "$KAFKA" -t unclip.tasks.text-encode -p 0 -k "$RUN-task/0" -H "task=$task" <<<"no tensors"
cluster start text-encode-0
letter_of "$RUN-task" "task: $REASON"
within 240 job_ended "$RUN-task" || fail "$RUN-task does not end"
one_result "$RUN-task" >/dev/null

# an event
job "$RUN-event" "a red heart"
kcat -P -b "$KAFKA" -t unclip.events -p 0 -k "$RUN-event" <<<"{\"version\":2,\"type\":\"praise\",\"job\":\"$RUN-event\"}"
praised() { (($(records unclip.dead-letter | grep -c "praise.*$RUN-event") > 0)); }
within 60 praised || fail "no dead letter of a newer event"
await_state "$RUN-event" succeeded

# a live job's state: the coordinator ends rather than lose it, until a newer one has served it
state="{\"version\":2,\"id\":\"$RUN-state\",\"state\":\"pondering\"}"
kcat -P -b "$KAFKA" -t unclip.state -p 0 -k "$RUN-state" <<<"$state"
cluster restart coordinator-0 2>"$WORK/said" || true # it may end before or after it says that it is ready
refused() { grep -q "job '$RUN-state' is a newer unclip's" "$UNCLIP_HOME/logs/coordinator-0.log"; }
within 60 refused || fail "the coordinator takes a newer job over"
within 60 dead "$(pid_of coordinator-0)" || fail "the coordinator goes on without a job"
job "$RUN-after" "a red heart"
kcat -P -b "$KAFKA" -t unclip.state -p 0 -Z -K: <<<"$RUN-state:"
cluster up
await_state "$RUN-after" succeeded
