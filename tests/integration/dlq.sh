#!/usr/bin/env bash
# unclip dlq: refused jobs and failed tasks are listed, shown, sent again, once however often, and deleted.
source "$(dirname "$0")/lib.sh"
use_cluster
dlq() { "$UNCLIP_BIN/unclip" dlq "$@"; }

# place_of ID: where the dead letter of that job stands
place_of() { dlq list --job "$1" --json | jq -r .place; }

# retry_of PLACE: the suffix of the job that sends it again
retry_of() { printf 'retry-%s' "${1/:/-}"; }

# fails STATUS TEXT COMMAND...: with that status, and saying that
fails() {
  local wanted=$1 text=$2 result=0
  shift 2
  "$@" >"$WORK/said" 2>"$WORK/err" || result=$?
  expect "exit status of '$*'" $result "$wanted"
  grep -qF -- "$text" "$WORK/err" || fail "'$*' does not say '$text' but: $(cat "$WORK/err")"
}

# a job whose id is taken by another one, one that is not JSON, one that is cut, and a cancellation of nothing
job "$RUN-taken" "a red heart"
job "$RUN-taken" "a blue star"
produce "$RUN-broken" <<<'a red heart, please'
produce "$RUN-huge" < <(printf '{"version":1,"prompt":"%s"}\n' "$(head -c 100000 /dev/zero | tr '\0' x)")
produce "$RUN-nothing" <<<'{"version":1,"type":"cancel"}'
# a task without its tensors: the picture fails, its value is not copied
route=$(jq -c '.route |= .[0:3] | .size = 64 | .route[1].steps = 2 | .route[2].steps = 2 | .hop = 1 | .home = 0 | .seed = 5 |
  .image = 2' "$ROOT/schemas/examples/task.json")
jq -c --arg job "$RUN-task" '.job = $job' <<<"$route" >"$WORK/task"
kcat -P -b "$KAFKA" -t unclip.tasks.prior -k "$RUN-task/2" -H "task=$(cat "$WORK/task")" <<<'no tensors'
for name in taken broken huge nothing task; do
  within 60 has_letters "$RUN-$name" 1 || fail "no dead letter of $RUN-$name"
done

# list
dlq list --limit 1000 >"$WORK/list"
for name in taken broken huge nothing task; do grep -qF "$RUN-$name" "$WORK/list" || fail "list does not show $name"; done
expect "lines of list --limit 2" "$(dlq list --limit 2 | wc -l)" 3
expect "letters that list --limit 2 --json gives" "$(dlq list --limit 2 --json | jq -s length)" 2
expect "ages in list" "$(dlq list --limit 1000 --json | jq -sc '[.[].at] | . == (sort | reverse)')" true
expect "code of the taken one" "$(dlq list --job "$RUN-taken" --json | jq -r .error_code)" conflict
expect "letters of another code" "$(dlq list --job "$RUN-taken" --code timeout --json | wc -l)" 0

# show
place=$(place_of "$RUN-broken")
expect "value in show" "$(dlq show "$place" | jq -r .value)" 'a red heart, please'
expect "place in show --json" "$(dlq show "$place" --json | jq -r .place)" "$place"
fails 1 'no dead letter at 0:999999' dlq show 0:999999
fails 1 'no dead letter at 999999:0' dlq show 999999:0
fails 2 "'here' is no place" dlq show here
fails 2 "no verb 'unknown'" dlq unknown

# replay of a job: its body, under a new id; twice is once
place=$(place_of "$RUN-taken")
id=$RUN-taken.$(retry_of "$place")
expect "what replay says" "$(dlq replay "$place")" "$place  sent as job $id"
await_state "$id" succeeded
expect "prompt of the job that was sent again" "$(one_result "$id" | jq -r .request.prompt)" "a blue star"
expect "what replay --json says" "$(dlq replay --job "$RUN-taken" --json)" "{\"place\":\"$place\",\"id\":\"$id\"}"

# replay of a task: a job of its one picture, with its seed
place=$(place_of "$RUN-task")
id=$RUN-task.2.$(retry_of "$place")
dlq replay "$place"
await_state "$id" succeeded
expect "seed and pictures of the task's job" "$(one_result "$id" | jq -c '[.request.seed, .request.n]')" '[5,1]'

# replay of what is no job: as it was
place=$(place_of "$RUN-nothing")
partition=$(dlq show "$place" | jq .source.partition)
expect "what replay says" "$(dlq replay "$place")" "$place  sent back to unclip.jobs [$partition]"
within 60 has_letters "$RUN-nothing" 2 || fail "the cancellation was not sent back"

# what cannot be sent again
fails 1 'only a part of the record was kept' dlq replay "$(place_of "$RUN-huge")"
fails 1 'it is not a JSON object' dlq replay "$(place_of "$RUN-broken")"
fails 2 'replay needs PLACE' dlq replay
fails 2 'replay needs PLACE' dlq replay --all --job x
fails 2 '--code goes with' dlq replay 0:0 --code timeout
fails 1 'no dead letter matches' dlq replay --job "$RUN-no-such"

# the jobs that were sent again more than once are one
expect "results of the job that was sent twice" "$(results_of "$RUN-taken.$(retry_of "$(place_of "$RUN-taken")")" | wc -l)" 1

# purge: nothing without --yes; up to a place; all of it
place=$(place_of "$RUN-huge")
before=$(dlq list --limit 10000 --json | wc -l)
fails 2 'say --yes' dlq purge
fails 2 'neither a time' dlq purge --before yesterday --yes
expect "letters after a purge without --yes" "$(dlq list --limit 10000 --json | wc -l)" "$before"
expect "what purge of a past time says" "$(dlq purge --before 2000-01-01 --yes)" '0 letters deleted'
dlq purge --before "$place" --yes
expect "first letter of the partition" "$(dlq list --limit 10000 --json | jq -r .place | grep "^${place%:*}:" |
  sort -t: -k2n | head -1)" "$place"
dlq purge --yes
expect "letters after the purge" "$(dlq list --json | wc -l)" 0
fails 1 "no dead letter at $place" dlq show "$place"
