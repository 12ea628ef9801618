#!/usr/bin/env bash
# Kills a process at each point of common/fault.h's table, once, and starts it again. Afterwards Kafka's logs
# alone must say: one result for each job, one report for each picture and stage, and the file that the
# report names is there with that digest.
source "$(dirname "$0")/lib.sh"
use_cluster
jobs=()

# points PROGRAM: the names of its points, from the table
points() {
  sed -nE 's/^ *X\(FAULT_[A-Z_]+, "([a-z_]+)", (FAULT_[A-Z]+),.*/\1 \2/p' "$ROOT/common/fault.h" |
    awk -v program="FAULT_${1^^}" '$2 == program || $2 == "FAULT_BOTH" { print $1 }'
}
expect "points found in the table" "$({ points worker && points coordinator; } | sort -u | wc -l)" \
  "$(grep -c 'X(FAULT_' "$ROOT/common/fault.h")"
# with_fault NAME POINT[:ACTION...]: restarts the process so that it dies there, which may be before it is ready
with_fault() { UNCLIP_FAULT=$2 cluster restart "$1" 2>"$WORK/said" || true; }
# dies_there NAME POINT: it did; starts it again without the fault
dies_there() {
  within 120 dead "$(pid_of "$1")" || fail "$1 lives on: $2"
  grep -q " fault at $2\$" "$UNCLIP_HOME/logs/$1.log" || fail "$1 did not die at $2: $(cat "$WORK/said")"
  cluster start "$1"
}
# submit ID [MORE_JSON]: two pictures
submit() {
  jobs+=("$1")
  job "$1" "a red heart" "\"n\": 2${2:+, $2}"
}

# the decoder is the last stage of these jobs: it hands on, stores and reports
for point in $(points worker); do
  id=$RUN-worker-${point//_/-}
  with_fault decoder-0 "worker.$point:kill"
  submit "$id"
  dies_there decoder-0 "$point"
  await_state "$id" succeeded
done

# the job's own record, and an event of one of its pictures
for point in $(points coordinator); do
  [[ $point != in_replay ]] || continue
  for nth in 1 2; do
    id=$RUN-coordinator-${point//_/-}-$nth
    with_fault coordinator-0 "coordinator.$point:kill:$nth"
    submit "$id"
    dies_there coordinator-0 "$point"
    await_state "$id" succeeded
  done
done

# a takeover that dies, with a job on its way, which the decoder does not take before it is started again
id=$RUN-coordinator-in-replay
cluster stop decoder-0
submit "$id"
within 60 state_is "$id" running || fail "$id does not run"
kill_now coordinator-0
UNCLIP_FAULT=coordinator.in_replay:kill cluster start coordinator-0 2>"$WORK/said" || true
dies_there coordinator-0 in_replay
cluster start decoder-0
await_state "$id" succeeded

# a picture's file as its report has it
report_holds() {
  local uri=$1 sha256=$2
  [[ $(sha256sum <"$(path_of "$uri")") == "$sha256  -" ]]
}
# count FILE: its lines, and how many of them differ
count() { printf '%s, %s distinct' "$(wc -l <"$1")" "$(sort -u "$1" | wc -l)"; }

total=${#jobs[@]}
mine() { jq -c --arg run "$RUN-" "select((.id // .job) | startswith(\$run))"; }
results() { records unclip.results | mine; }
all_told() { (($(results | wc -l) >= total)); }
within 60 all_told || fail "$(results | wc -l) results of $total jobs"
results >"$WORK/results"
records unclip.events | mine >"$WORK/events"
jq -r .id "$WORK/results" >"$WORK/ids"
expect "results" "$(count "$WORK/ids")" "$total, $total distinct"
expect "their states" "$(jq -r .state "$WORK/results" | sort -u)" succeeded
jq -r '"\(.job) \(.image) \(.stage)"' "$WORK/events" >"$WORK/reports"
expect "reports" "$(count "$WORK/reports")" "$((total * 2 * 3)), $((total * 2 * 3)) distinct"
jq -r 'select(.type == "picture-finished") | "\(.uri) \(.sha256)"' "$WORK/events" >"$WORK/pictures"
expect "pictures" "$(count "$WORK/pictures")" "$((total * 2)), $((total * 2)) distinct"
while read -r uri sha256; do
  report_holds "$uri" "$sha256" || fail "$uri is not what its report says"
done <"$WORK/pictures"
expect "digests" "$(cut -d' ' -f2 "$WORK/pictures" | sort | uniq -c | awk '{ print $1 }' | sort -rn | head -n 2 | xargs)" \
  "$total $total"
