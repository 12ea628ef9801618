#!/usr/bin/env bash
# A second decoder joins while 40 jobs wait: both do a fair share, nothing is lost or made twice.
source "$(dirname "$0")/lib.sh"
use_cluster
readonly JOBS=40

# decoded [WORKER]: events of this run's decoder tasks
decoded() {
  records unclip.events | jq -c --arg run "$RUN-" --arg worker "${1:-}" \
    'select(.job | startswith($run)) | select(.stage == "decoder") | select($worker == "" or .worker == $worker)'
}
# ended: ids of this run's final records, one a line
ended() { records unclip.results | jq -r --arg run "$RUN-" 'select(.id | startswith($run)) | .id'; }
some_decoded() { [[ -n $(decoded) ]]; }
all_ended() { (($(ended | wc -l) >= JOBS)); }
all_wait() { (($(records unclip.events | jq -r --arg run "$RUN-" 'select(.stage == "prior" and (.job | startswith($run))).job' | wc -l) >= JOBS)); }
# jobs STEPS: all of them at once
jobs() {
  for ((i = 0; i < JOBS; i++)); do
    printf '%s\t{"version":1,"type":"text-to-image","prompt":"a red heart %d","size":64,"seed":1,"steps":{"prior":2,"decoder":%d}}\n' \
      "$RUN-$i" $i "$1"
  done | kcat -P -b "$KAFKA" -t unclip.jobs -K $'\t'
}

# as many steps as keep one decoder busy for some 16 s here and now: ten starts of another one
job "rate-$RUN" "a red heart" '"steps": {"prior": 2, "decoder": 100}'
await_state "rate-$RUN" succeeded
ms=$(field "rate-$RUN" timings | jq '.decoder | ceil')
steps=$((16000 * 100 / (JOBS * ms)))
((steps >= 10)) || steps=10
((steps <= 1000)) || steps=1000
printf '100 steps take %d ms: %d steps a job\n' "$ms" $steps

cluster stop decoder-0
jobs $steps
within 240 all_wait || fail "the prior does not work"
export UNCLIP_BATCH=2
cluster start decoder-0
within 240 some_decoded || fail "the first decoder does nothing"
cluster scale decoder 2
before=$(decoded | wc -l)
((before < JOBS / 2)) || fail "only $((JOBS - before)) jobs waited when the second decoder started"
within 400 all_ended || fail "only $(ended | sort -u | wc -l) of $JOBS jobs ended"

expect "jobs with a result" "$(ended | sort -u | wc -l)" $JOBS
expect "results" "$(ended | wc -l)" $JOBS
expect "states" "$(records unclip.results | jq -r --arg run "$RUN-" 'select(.id | startswith($run)) | .state' | sort -u)" succeeded
expect "pictures decoded" "$(decoded | jq -r '"\(.job)/\(.image)"' | sort -u | wc -l)" $JOBS
expect "times a picture was decoded" "$(decoded | wc -l)" $JOBS

# which partition a job comes to is by chance: a sixth is what hardly ever fails
first=$(decoded decoder-0 | wc -l) second=$(decoded decoder-1 | wc -l)
printf 'decoder-0 made %d (%d of them alone), decoder-1 made %d\n' "$first" "$before" "$second"
share=$(((JOBS - before) / 6))
((second >= share)) || fail "decoder-1 made only $second of $((JOBS - before)) pictures"
((first - before >= share)) || fail "decoder-0 made only $((first - before)) of $((JOBS - before)) pictures"
unset UNCLIP_BATCH
cluster scale decoder 1
cluster restart decoder-0
