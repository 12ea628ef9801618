#!/usr/bin/env bash
# A task that kills its worker, in a batch with others: they are computed one by one afterwards, and it is a
# dead letter after three deaths.
source "$(dirname "$0")/lib.sh"
use_cluster
readonly OTHERS=6

poisoned() { env "UNCLIP_FAULT=worker.in_compute:kill@$RUN-poison" "$ROOT/ops/cluster" "$@"; }
started() { redis --scan --pattern "unclip:started:$RUN-*" | wc -l; }

# all of them wait for the decoder, and so share its first batch
cluster stop decoder-0
job "$RUN-poison" "a red heart"
for ((i = 0; i < OTHERS; i++)); do job "$RUN-other-$i" "a blue star"; done
wait_there() {
  (($(records unclip.events | jq -r --arg run "$RUN-" 'select((.job | startswith($run)) and .stage == "prior").job' | wc -l) > OTHERS))
}
within 120 wait_there || fail "the prior does not work"
# it may die before it is ready
UNCLIP_BATCH=$((OTHERS + 1)) UNCLIP_LINGER_MS=10000 poisoned start decoder-0 2>"$WORK/said" || true
deaths=0
while ! job_ended "$RUN-poison"; do
  pid=$(pid_of decoder-0)
  over() { dead "$pid" || job_ended "$RUN-poison"; }
  within 120 over || fail "the decoder neither died nor ended $RUN-poison"
  dead "$pid" || continue
  grep -q ' fault at in_compute$' "$UNCLIP_HOME/logs/decoder-0.log" || fail "the decoder died of something else: $(cat "$WORK/said")"
  deaths=$((deaths + 1))
  ((deaths <= 3)) || fail "the decoder died again"
  poisoned start decoder-0 2>"$WORK/said" || true
done
expect "deaths" "$deaths" 3
await_state "$RUN-poison" failed
expect "its error" "$(field "$RUN-poison" error_code): $(field "$RUN-poison" error_message)" \
  "worker_died: worker died 3 times"
expect "its dead letter" "$(one_letter "$RUN-poison" | jq -r '"\(.error_code) \(.stage)"')" "worker_died decoder"
for ((i = 0; i < OTHERS; i++)); do
  await_state "$RUN-other-$i" succeeded
  one_result "$RUN-other-$i" >/dev/null
done
# those that died with it were then computed alone; the poison, not computed any more, may be there with one
batches=$(records unclip.events | jq -r --arg run "$RUN-other" \
  'select((.job | startswith($run)) and .stage == "decoder").batch' | sort | uniq -c | xargs)
[[ $batches == "$OTHERS 1" || $batches == "$((OTHERS - 1)) 1 1 2" ]] || fail "their batches are '$batches'"
none_started() { [[ $(started) == 0 ]]; }
within 60 none_started || fail "$(started) counts stay behind"
cluster restart decoder-0
