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

for ((i = 0; i < JOBS; i++)); do
  job "$RUN-$i" "a red heart $i" '"steps": {"prior": 2, "decoder": 40, "upsampler-1": 2}, "size": 256'
done
within 120 some_decoded || fail "the first decoder does nothing"
before=$(decoded | wc -l)
((before < JOBS / 2)) || fail "only $((JOBS - before)) jobs waited when the second decoder started"
cluster scale decoder 2
within 400 all_ended || fail "only $(ended | sort -u | wc -l) of $JOBS jobs ended"

expect "jobs with a result" "$(ended | sort -u | wc -l)" $JOBS
expect "results" "$(ended | wc -l)" $JOBS
expect "states" "$(records unclip.results | jq -r --arg run "$RUN-" 'select(.id | startswith($run)) | .state' | sort -u)" succeeded
expect "pictures decoded" "$(decoded | jq -r '"\(.job)/\(.image)"' | sort -u | wc -l)" $JOBS
expect "times a picture was decoded" "$(decoded | wc -l)" $JOBS

first=$(decoded decoder-0 | wc -l) second=$(decoded decoder-1 | wc -l)
printf 'decoder-0 made %d (%d of them alone), decoder-1 made %d\n' "$first" "$before" "$second"
share=$(((JOBS - before) / 4))
((second >= share)) || fail "decoder-1 made only $second of $((JOBS - before)) pictures"
((first - before >= share)) || fail "decoder-0 made only $((first - before)) of $((JOBS - before)) pictures"
cluster scale decoder 1
