#!/usr/bin/env bash
# SIGTERM finishes the batch in hand and takes no more; a second one leaves at once, and nothing of the batch
# is told. All workers are restarted one after the other under load: nothing is lost, or computed twice.
source "$(dirname "$0")/lib.sh"
use_cluster

# reports STAGE ID-PREFIX: how many
reports() {
  records unclip.events | jq -r --arg stage "$1" --arg id "$2" 'select(.stage == $stage and (.job | startswith($id))).job' | wc -l
}
reported() { (($(reports "$1" "$2") >= $3)); }
computing() { [[ $(field "$1" stage) == decoder && $(field "$1" step) -gt 0 ]]; }
any_computing() { for ((i = 0; i < 4; i++)); do ! computing "$RUN-one-$i" || return 0; done; return 1; }
decoder_says() { grep -q "$1" "$UNCLIP_HOME/logs/decoder-0.log"; }

# four tasks wait for a decoder that takes two at a time
cluster stop decoder-0
for ((i = 0; i < 4; i++)); do job "$RUN-one-$i" "a red heart" '"steps": {"prior": 2, "decoder": 200}'; done
within 120 reported prior "$RUN-one-" 4 || fail "the prior does not work"
UNCLIP_BATCH=2 UNCLIP_LINGER_MS=10000 cluster start decoder-0
pid=$(pid_of decoder-0)
within 120 any_computing || fail "the decoder does not compute"
kill -TERM "$pid"
within 240 dead "$pid" || fail "the decoder does not stop"
decoder_says 'stopping after the batch in hand' || fail "the decoder does not say that it stops"
decoder_says ' stopped$' || fail "the decoder does not say that it has stopped"
within 60 reported decoder "$RUN-one-" 2 || fail "the decoder does not hand on its batch"
expect "pictures that it finished" "$(reports decoder "$RUN-one-")" 2
cluster start decoder-0
for ((i = 0; i < 4; i++)); do await_state "$RUN-one-$i" succeeded; done
expect "pictures in the end" "$(reports decoder "$RUN-one-")" 4

# twice
job "$RUN-two" "a red heart" '"steps": {"prior": 2, "decoder": 300}'
within 120 computing "$RUN-two" || fail "the decoder does not compute"
pid=$(pid_of decoder-0)
kill -TERM "$pid"
within 60 decoder_says 'stopping after the batch in hand' || fail "the decoder does not take SIGTERM"
if dead "$pid"; then fail "the decoder does not finish its batch"; fi
kill -TERM "$pid"
within 60 dead "$pid" || fail "the decoder does not take a second SIGTERM"
expect "what it told" "$(reports decoder "$RUN-two")" 0
cluster start decoder-0
await_state "$RUN-two" succeeded
expect "pictures in the end" "$(reports decoder "$RUN-two")" 1

# a rolling restart under load
readonly JOBS=20
for ((i = 0; i < JOBS; i++)); do job "$RUN-roll-$i" "a red heart $i"; done
for name in text-encode-0 prior-0 decoder-0 coordinator-0; do cluster restart "$name"; done
for ((i = 0; i < JOBS; i++)); do await_state "$RUN-roll-$i" succeeded; done
for stage in text-encode prior decoder; do expect "reports of $stage" "$(reports $stage "$RUN-roll-")" $JOBS; done
dead_letters() { records unclip.dead-letter | grep -c "$RUN" || true; }
expect "dead letters" "$(dead_letters)" 0
