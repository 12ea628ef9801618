#!/usr/bin/env bash
# The verbs of the command line, against a running cluster.
source "$(dirname "$0")/lib.sh"
use_cluster
unclip=$UNCLIP_BIN/unclip
quick=(--steps-prior 2 --steps-decoder 2 --steps-upsampler-1 2)

# submit --wait -o: pictures come into the folder
"$unclip" submit "a red heart" --id "$RUN-two" --n 2 --seed 7 --size 256 "${quick[@]}" --wait -o "$WORK/out"
for i in 0 1; do expect "size of picture $i" "$(png_size "$WORK/out/$RUN-two-$i.png")" 256x256; done

# samplers travel to the workers, into the status and into the picture, which is the one that generate makes
fast=(--seed 7 --size 256 --steps-prior 3 --steps-decoder 4 --steps-upsampler-1 2 --sampler-prior ddim --eta-prior 0.5
  --sampler-decoder dpm-solver++ --reuse-decoder 2 --sampler-upsampler-1 ddim)
"$unclip" submit "a red heart" --id "$RUN-fast" "${fast[@]}" --wait -o "$WORK/out"
expect "samplers in the status" \
  "$("$unclip" status "$RUN-fast" --json | jq -c '[.route[] | [.sampler // "ddpm", .eta // 0, .reuse // 1]]')" \
  '[["ddpm",0,1],["ddim",0.5,1],["dpm-solver++",0,2],["ddim",0,1]]'
"$unclip" info "$WORK/out/$RUN-fast-0.png" >"$WORK/info"
grep -qF "Sampler: DPM++ 2M" "$WORK/info" || fail "the picture does not say its sampler"
grep -qE 'unclip generate .*--sampler-decoder dpm-solver\+\+ .*--reuse-decoder 2' "$WORK/info" ||
  fail "info gives no command with the sampler"
"$unclip" generate "a red heart" "${fast[@]}" -q -o "$WORK/fast"
cmp "$WORK/fast/0.png" "$WORK/out/$RUN-fast-0.png" || fail "generate and the cluster differ with other samplers"

# submit --json | status --json | watch | list
id=$("$unclip" submit "a blue star" --size 64 --seed 1 "${quick[@]}" --json | jq -r .id)
[[ -n $id && $id != null ]] || fail "submit --json gives no id"
"$unclip" watch "$id"
status=$("$unclip" status "$id" --json)
expect "state in status" "$(jq -r .state <<<"$status")" succeeded
expect "id in status" "$(jq -r .id <<<"$status")" "$id"
grep -qw succeeded <<<"$("$unclip" status "$id")" || fail "status does not say succeeded"
grep -qF "$id" <<<"$("$unclip" list)" || fail "list does not show $id"
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

# exits STATUS COMMAND...: with that status, and a reason, which comes into $WORK/err
exits() {
  local wanted=$1 result=0
  shift
  "$@" >"$WORK/said" 2>"$WORK/err" || result=$?
  expect "exit status of '$*'" $result "$wanted"
  [[ -s $WORK/err ]] || fail "'$*' says nothing"
}

# info: what a prompt holds does not steer the terminal, and the command still makes that prompt
prompt=$'a red\e[31m heart\x7f \'x\' \\\nof two lines'
"$unclip" generate "$prompt" --size 64 --seed 1 "${quick[@]:0:4}" -q -o "$WORK/odd"
"$unclip" info "$WORK/odd/0.png" >"$WORK/info"
! LC_ALL=C grep -q $'[\x01-\x09\x0b-\x1f\x7f]' "$WORK/info" || fail "info writes control characters"
grep -qF 'a red [31m heart' "$WORK/info" || fail "info does not show the cleaned prompt"
expect "command lines of info" "$(grep -c '^  unclip generate ' "$WORK/info")" 1
eval "set -- $(sed -n 's/^  unclip generate //p' "$WORK/info")"
expect "the prompt of info's command" "$1" "$prompt"

# generate: a folder that cannot take pictures is told before the computing, not after hours of it
exits 1 timeout 60 "$unclip" generate "a red heart" --n 64 --steps-decoder 1000 -o "$WORK/odd/0.png"
grep -qF "cannot write into the folder '$WORK/odd/0.png'" "$WORK/err" || fail "the error does not name the folder"

# no such model: could not be done, whoever is asked
exits 1 "$unclip" generate "a red heart" --model "$WORK/none" -o "$WORK/odd"
exits 1 "$unclip" model check "$WORK/none"

# a size that the model does not make, where the model is here
exits 2 "$unclip" submit "a red heart" --size 512
grep -qF "'emoji' makes 64, 256 or 1024" "$WORK/err" || fail "the error does not name the sizes"

# no Kafka: one plain sentence
exits 3 "$unclip" submit "a red heart" --kafka 127.0.0.1:1
! grep -q 'in state' "$WORK/err" || fail "the error has librdkafka's states in it"

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
