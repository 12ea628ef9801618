#!/usr/bin/env bash
# Anything at all in every topic: each record that a worker or the coordinator refuses is one dead letter with
# the reason, a job goes its way meanwhile and afterwards, and nobody stops.
source "$(dirname "$0")/lib.sh"
unset UNCLIP_HOME # what it leaves in the topics, no other test could read
use_cluster
readonly STAGES=(text-encode prior image-encode decoder upsampler-1 upsampler-2)

pids() { (cd "$UNCLIP_HOME/run" && grep . ./*.pid | grep -E 'coordinator|text-|prior|image-|decoder|upsampler' | sort); }

# send TOPIC KEY [HEADER] FILE...: one record of each file
send() {
  local topic=$1 name=$2 headers=()
  shift 2
  [[ $1 != task=* ]] || {
    headers=(-H "$1")
    shift
  }
  timeout 120 kcat -P -b "$KAFKA" -t "$topic" -k "$name" "${headers[@]}" -X message.max.bytes=1048000 "$@"
}

# what no parser expects
repeat() { head -c "$2" /dev/zero | tr '\0' "$1"; }
bad() { printf '%s/bad-%s' "$WORK" "$1"; }
head -c 3000 /dev/urandom >"$(bad random)"
printf '\x00\xff\xfe{"version":1}' >"$(bad binary)"
printf '\xff\xff\xff\xff\xff\xff\xff\x7f{}' >"$(bad huge-header)"
printf '\x20\x00\x00\x00\x00\x00\x00\x00{"a":{"dtype":"F32","shape":[9]' >"$(bad truncated)"
{
  repeat '[' 50000
  repeat ']' 50000
} >"$(bad deep)"
printf '{"version":2}' >"$(bad newer)"
printf '{"version":1,"a":%s}' "$(repeat 9 5000)" >"$(bad long-number)"
bytes=("$(bad random)" "$(bad binary)" "$(bad huge-header)" "$(bad truncated)")
json=("$(bad deep)" "$(bad newer)" "$(bad long-number)")

# task STAGE CLASS [JSON]: a task that is whole, but for what JSON replaces
task() {
  jq -c --arg stage "$1" --arg class "$2" --arg job "$RUN-ghost" '
    .job = $job | .class = $class | .home = 0 | .size = 1024 |
    .route = [{stage: "text-encode", steps: 0, guidance: 0}, {stage: "prior", steps: 2, guidance: 2},
      {stage: "image-encode", steps: 0, guidance: 0}, {stage: "decoder", steps: 2, guidance: 2},
      ({stage: ("upsampler-1", "upsampler-2"), steps: 2, guidance: 0})] |
    .hop = ([.route[].stage] | index($stage)) | . + '"${3:-{\}}" "$ROOT/schemas/examples/task.json"
}

before=$(pids)
job "$RUN-during" "a red heart"
declare -A sent
for stage in "${STAGES[@]}"; do
  for class in interactive bulk; do
    topic=unclip.tasks.$stage
    [[ $class == interactive ]] || topic+=.bulk
    send "$topic" "$RUN-x" "${bytes[@]}"
    send "$topic" "$RUN-x" "task=no JSON" "$(bad random)"
    send "$topic" "$RUN-x" "task=$(repeat '[' 5000)" "$(bad random)"
    send "$topic" "$RUN-x" "task=$(task "$stage" "$class" '{"version": 2}')" "$(bad random)"
    send "$topic" "$RUN-x" "task=$(task "$stage" "$class" '{"home": 999}')" "$(bad random)"
    send "$topic" "$RUN-x" "task=$(task "$stage" "$class" "{\"prompt\": \"$(repeat x 100000)\"}")" "$(bad random)"
    for i in 0 1 2 3; do send "$topic" "$RUN-x" "task=$(task "$stage" "$class" "{\"image\": $i}")" "${bytes[i]}"; done
    sent[$topic]=13
  done
done
send unclip.jobs "$RUN-x" "${bytes[0]}" # its key is a job's id, and may be refused once
send unclip.jobs "$RUN x" "${bytes[@]}" "${json[@]}"
sent[unclip.jobs]=8
send unclip.events "$RUN-x" "${bytes[@]}" "${json[@]}"
sent[unclip.events]=7
send unclip.dead-letter "$RUN-x" "${bytes[@]}" "${json[@]}"
await_state "$RUN-during" succeeded

# each has its dead letter
letters() {
  read_topic unclip.dead-letter %s | tr -d '\0' | jq -Rrc --arg key "$RUN" \
    'fromjson? | objects | select((.key // "") | tostring | test("^" + $key + ".x")) | select(.source) |
      select((.error_message // "") != "" and (.error_code // "") != "") | .source.topic'
}
have_all() {
  letters | sort | uniq -c >"$WORK/letters"
  for topic in "${!sent[@]}"; do
    grep -qx " *${sent[$topic]} $topic" "$WORK/letters" || return 1
  done
}
within 120 have_all || fail "dead letters, by topic: $(xargs <"$WORK/letters")"
expect "the number of dead letters" "$(letters | wc -l)" $((156 + 8 + 7))
"$UNCLIP_BIN/unclip" dlq list --limit 1000 >"$WORK/list" 2>"$WORK/said" || fail "unclip dlq list: $(cat "$WORK/said")"
(($(wc -l <"$WORK/list") > 170)) || fail "unclip dlq list shows $(wc -l <"$WORK/list") lines"

# what a coordinator reads when it takes over: it says what it cannot read, and goes on
for topic in unclip.state unclip.results; do
  send $topic "$RUN-y" -p 0 "${bytes[@]}" "$(bad deep)" "$(bad long-number)"
done
expect "the processes" "$(pids)" "$before"
cluster restart coordinator-0
job "$RUN-after" "a blue star"
await_state "$RUN-after" succeeded
results_of_after() {
  read_topic unclip.results %s | tr -d '\0' | jq -Rrc --arg id "$RUN-after" 'fromjson? | objects | select(.id == $id) | .state'
}
told() { [[ -n $(results_of_after) ]]; }
within 30 told || fail "no result of $RUN-after"
expect "results of $RUN-after" "$(results_of_after)" succeeded
grep -q "unclip.state/0@.* is lost: " "$UNCLIP_HOME/logs/coordinator-0.log" || fail "the coordinator does not say what it cannot read"
for topic in unclip.state unclip.results; do
  kcat -P -b "$KAFKA" -t $topic -p 0 -Z -K: <<<"$RUN-y:"
done
within 60 cluster status >/dev/null || fail "somebody has stopped"
expect "the workers" "$(pids | grep -v coordinator)" "$(grep -v coordinator <<<"$before")"
