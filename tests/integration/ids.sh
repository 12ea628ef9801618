#!/usr/bin/env bash
# A job's id is the record's key, or the field id, or made from topic, partition and offset.
source "$(dirname "$0")/lib.sh"
use_cluster

job "$RUN-key" "a red heart"
await_state "$RUN-key" succeeded
expect type "$(field "$RUN-key" type)" text-to-image

job '' "a red heart" "\"id\": \"$RUN-field\""
await_state "$RUN-field" succeeded

# the made id: the record tells its own place
job '' "a red heart" "\"client\": \"$RUN\""
place=$(kcat -C -e -q -b "$KAFKA" -t unclip.jobs -o beginning -f '%t-%p-%o %s\n' | grep -aF "\"client\":\"$RUN\"" | cut -d' ' -f1)
[[ $place =~ ^unclip\.jobs-[0-9]+-[0-9]+$ ]] || fail "the record was not found"
has_status() { [[ -n $(field "$1" state) ]]; }
within 60 has_status "$place" || fail "no status of $place"
await_state "$place" succeeded
one_result "$place" >/dev/null
