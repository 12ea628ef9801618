#!/usr/bin/env bash
# Deadlines and cancellations reach what is being computed, between two denoising steps: the worker is free at
# once, and the others in the batch get the bytes that they would have got.
source "$(dirname "$0")/lib.sh"
use_cluster
readonly LONG='"steps": {"prior": 2, "decoder": 1000}'

cancel() { produce "$1" <<<'{"version":1,"type":"cancel"}'; }
events_of() { records unclip.events | jq -c --arg id "$1" 'select(.job == $id)'; }
drops_of() { events_of "$1" | jq -c 'select(.type == "picture-dropped")'; }
dropped() { [[ $(drops_of "$1" | wc -l) == "$2" ]]; }
at_decoder() { [[ $(field "$1" stage) == decoder && $(field "$1" step) -gt 0 ]]; }
picture_of() { pixels_of "$(path_of "$(one_result "$1" | jq -r '.images[0].uri')")"; }
# ms_between ISO ISO
ms_between() { jq -n --arg a "$1" --arg b "$2" 'def ms: (.[0:19] + "Z" | fromdate) * 1000 + (.[20:23] | tonumber); ($b | ms) - ($a | ms)'; }

# how long one picture of 400 steps takes here and now
job "$RUN-plain" "a blue star" '"steps": {"prior": 2, "decoder": 400}'
await_state "$RUN-plain" succeeded
plain=$(ms_between "$(field "$RUN-plain" created_at)" "$(field "$RUN-plain" finished_at)")

# cancelled while the decoder has all of the batch: it is free within a second, or on a slow machine at least long
# before it would have been
job "$RUN-cancel" "a red heart" "\"n\": 4, $LONG"
within 120 at_decoder "$RUN-cancel" || fail "$RUN-cancel does not get to the decoder"
cancel "$RUN-cancel"
await_state "$RUN-cancel" cancelled
within 240 dropped "$RUN-cancel" 4 || fail "the decoder goes on with a cancelled job"
ms=$(ms_between "$(one_result "$RUN-cancel" | jq -r .finished_at)" "$(drops_of "$RUN-cancel" | jq -rs 'map(.at) | max')")
printf 'the decoder was free %d ms after the cancellation; 400 steps of one picture took %d ms\n' "$ms" "$plain"
((ms <= 1000 || ms <= plain)) || fail "the decoder was free only $ms ms after the cancellation"

# one of a batch is cancelled; the other's bytes are the same as without it
UNCLIP_BATCH=2 UNCLIP_LINGER_MS=10000 cluster restart decoder-0
job "$RUN-stays" "a blue star" '"steps": {"prior": 2, "decoder": 400}'
job "$RUN-leaves" "a red heart" '"steps": {"prior": 2, "decoder": 400}'
within 120 at_decoder "$RUN-leaves" || fail "$RUN-leaves does not get to the decoder"
cancel "$RUN-leaves"
await_state "$RUN-leaves" cancelled
await_state "$RUN-stays" succeeded
expect "the batch of those two" "$(events_of "$RUN-stays" | jq 'select(.stage == "decoder").batch')" 2
expect "pictures dropped" "$(drops_of "$RUN-leaves" | wc -l)" 1
expect "the pixels of the other" "$(picture_of "$RUN-stays")" "$(picture_of "$RUN-plain")"
cluster restart decoder-0

# a deadline passes while the job is computed, and while it waits for a worker
job "$RUN-late" "a red heart" "\"n\": 4, \"deadline_s\": 2, $LONG"
await_state "$RUN-late" expired
expect "its error" "$(field "$RUN-late" error_code): $(field "$RUN-late" error_message)" \
  "expired: the job's deadline of 2 s has passed"
within 240 dropped "$RUN-late" 4 || fail "the decoder goes on with an expired job"
expect "why they were dropped" "$(drops_of "$RUN-late" | jq -r .error_code | sort -u)" expired
cluster stop decoder-0
job "$RUN-waits" "a red heart" '"deadline_s": 2'
await_state "$RUN-waits" expired
cluster start decoder-0
within 60 dropped "$RUN-waits" 1 || fail "the decoder takes up an expired job"
job "$RUN-in-time" "a red heart" '"deadline_s": 600'
await_state "$RUN-in-time" succeeded
for id in cancel leaves late waits; do one_result "$RUN-$id" >/dev/null; done
expect "dead letters" "$(dead_letters_of "$RUN-late")$(dead_letters_of "$RUN-waits")" ""
