#!/usr/bin/env bash
# Jobs that wait: a bounded number of pictures in flight, turns between clients, a place in the queue, and a coordinator
# that dies with jobs waiting.
source "$(dirname "$0")/lib.sh"
use_cluster

# one picture of each class at a time on each partition
export UNCLIP_INFLIGHT_INTERACTIVE=1 UNCLIP_INFLIGHT_BULK=1
cluster restart coordinator-0
# and none of them ends before the decoder is started again
cluster stop decoder-0
restore() {
  local result=$?
  set +e
  unset UNCLIP_INFLIGHT_INTERACTIVE UNCLIP_INFLIGHT_BULK UNCLIP_WAITING_PER_CLIENT
  if [[ -z ${OWN_CLUSTER:-} ]]; then
    cluster stop coordinator-0
    cluster up
  fi
  (exit "$result")
  finish
}
trap restore EXIT

# here ID CLIENT [MORE_JSON]: a bulk job, all of them on one partition
here() {
  jq -nc --arg client "$2" "{version:1, type:\"text-to-image\", prompt:\"a red heart\", size:64, seed:1, class:\"bulk\",
    client:\$client, $QUICK} + {${3:-}}" >"$WORK/record"
  kcat -P -b "$KAFKA" -t unclip.jobs -p 0 -k "$1" "$WORK/record"
}
# in the order in which they were admitted, as the tasks' topic has it
admitted() {
  read_topic unclip.tasks.text-encode.bulk '%T %k' | grep " $RUN" | sort -n | cut -d' ' -f2 || true
}
status() { "$UNCLIP_BIN/unclip" status --json "$1"; }

# the first one holds the only place for as long as it takes to look at the others
here "$RUN-slow" busy
for i in {1..10}; do here "$RUN-busy-$i" busy '"n": 2'; done
here "$RUN-single" another
within 60 state_is "$RUN-slow" running || fail "the first job does not run"
within 60 state_is "$RUN-single" accepted || fail "a job does not wait"
waiting_is() { [[ $(redis HGET unclip:queue 0:bulk:waiting) == "$1" ]]; }
within 60 waiting_is 21 || fail "'$(redis HGET unclip:queue 0:bulk:waiting)' pictures wait, not 21"
expect "tasks" "$(admitted)" "$RUN-slow/0"
expect "clients" "$(redis HGET unclip:queue 0:bulk:clients)" 2
expect "place of the first that waits" "$(status "$RUN-busy-1" | jq .queue_position)" 1
last=$(status "$RUN-busy-10" | jq .queue_position)
((last >= 18 && last <= 21)) || fail "the last job's place is $last"
single=$(status "$RUN-single" | jq .queue_position)
((single <= 3)) || fail "the single job of another client has place $single"
grep -q '1 pictures ahead' <<<"$("$UNCLIP_BIN/unclip" status "$RUN-busy-1")" || fail "status does not show the place"

# what waits can be cancelled at once; what is one too many is refused
"$UNCLIP_BIN/unclip" cancel "$RUN-busy-10" >/dev/null
await_state "$RUN-busy-10" cancelled
expect "its pictures" "$(one_result "$RUN-busy-10" | jq -c '[.images[].state]')" '["dropped","dropped"]'

# dead with jobs waiting: the next one goes on with them, in their order
kill_now coordinator-0
export UNCLIP_WAITING_PER_CLIENT=10
cluster start coordinator-0
within 60 waiting_is 19 || fail "after a restart '$(redis HGET unclip:queue 0:bulk:waiting)' pictures wait, not 19"
here "$RUN-busy-11" busy
within 60 waiting_is 20 || fail "'$(redis HGET unclip:queue 0:bulk:waiting)' pictures wait, not 20"
here "$RUN-refused" busy
await_state "$RUN-refused" failed
expect "its error" "$(field "$RUN-refused" error_code)" quota_exceeded
"$UNCLIP_BIN/unclip" cancel "$RUN-slow" >/dev/null
cluster start decoder-0
for i in {1..9} 11; do await_state "$RUN-busy-$i" succeeded; done
await_state "$RUN-single" succeeded
order=$(admitted | grep -v single)
wanted=$(printf "$RUN-%s\n" slow/0 busy-{1..9}/{0,1} busy-11/0)
expect "order of one client's tasks" "$order" "$wanted"
at=$(admitted | grep -n single | cut -d: -f1)
((at <= 4)) || fail "the other client's job was admitted as number $at"
queue_is_empty() { [[ $(redis HMGET unclip:queue 0:bulk:waiting 0:bulk:in_flight | xargs) == '0 0' ]]; }
within 60 queue_is_empty || fail "of no jobs $(redis HMGET unclip:queue 0:bulk:waiting 0:bulk:in_flight | xargs) wait and are in flight"
