#!/usr/bin/env bash
# The verbs of the command line, against a running cluster.
source "$(dirname "$0")/lib.sh"
use_cluster
unclip=$UNCLIP_BIN/unclip
quick=(--steps-prior 2 --steps-decoder 2 --steps-upsampler-1 2)

# submit --wait -o: pictures come into the folder
"$unclip" submit "a red heart" --id "$RUN-two" --n 2 --seed 7 --size 256 "${quick[@]}" --wait -o "$WORK/out"
for i in 0 1; do expect "size of picture $i" "$(png_size "$WORK/out/$RUN-two-$i.png")" 256x256; done

# submit --json | status --json | watch | list
id=$("$unclip" submit "a blue star" --size 64 --seed 1 "${quick[@]}" --json | jq -r .id)
[[ -n $id && $id != null ]] || fail "submit --json gives no id"
"$unclip" watch "$id"
status=$("$unclip" status "$id" --json)
expect "state in status" "$(jq -r .state <<<"$status")" succeeded
expect "id in status" "$(jq -r .id <<<"$status")" "$id"
"$unclip" status "$id" | grep -qw succeeded || fail "status does not say succeeded"
"$unclip" list | grep -qF "$id" || fail "list does not show $id"
! "$unclip" status no-such-job 2>"$WORK/err" || fail "status of an unknown job succeeds"
grep -q no-such-job "$WORK/err" || fail "the error does not name the job"

# cancel
"$unclip" submit "a red heart" --n 8 --size 64 --steps-decoder 1000 --json >"$WORK/json"
id=$(jq -r .id "$WORK/json")
"$unclip" cancel "$id"
await_state "$id" cancelled

# info: how it was made, and the command to make it again
"$unclip" info "$WORK/out/$RUN-two-1.png" >"$WORK/info"
grep -qF "a red heart" "$WORK/info" || fail "info does not show the prompt"
grep -qE 'unclip generate .*--seed[ =]8' "$WORK/info" || fail "info gives no command with the picture's seed"

# a refused job: submit --wait says why and fails
! "$unclip" submit "" --wait 2>"$WORK/err" || fail "an empty prompt is accepted"
[[ -s $WORK/err ]] || fail "the refusal is silent"

"$unclip" model check "$UNCLIP_MODELS/emoji" >/dev/null
! "$unclip" model check "$WORK" 2>/dev/null >&2 || fail "model check accepts an empty folder"
! "$unclip" submit 2>"$WORK/err" || fail "submit without a prompt succeeds"

# misuse: reason to stderr, exit 2
result=0
"$unclip" no-such-verb 2>"$WORK/err" || result=$?
expect "exit status of a wrong verb" $result 2
grep -q no-such-verb "$WORK/err" || fail "the error does not quote the verb"

# topics: made already, so this only checks them
"$unclip" topics --create
