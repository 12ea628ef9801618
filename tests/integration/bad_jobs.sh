#!/usr/bin/env bash
# Bad jobs end as failed, with a reason, in Redis, in unclip.results and in the dead letters; the next one is served.
source "$(dirname "$0")/lib.sh"
use_cluster
ids=()

# bad NAME: stdin as a record that must be refused
bad() {
  ids+=("$RUN-$1")
  produce "$RUN-$1"
}

# told FILE FIELD: of how many of them that file of records tells
told() { jq -r --arg run "$RUN-" "select((.$2 // \"\") | startswith(\$run)).$2" "$WORK/$1" | grep -vxF "$RUN-good" | sort -u | wc -l; }
all_told() {
  records unclip.results >"$WORK/results"
  records unclip.dead-letter >"$WORK/letters"
  (($(told results id) == ${#ids[@]} && $(told letters job) == ${#ids[@]}))
}

# refused ID: checks all that must be known of it
refused() {
  await_state "$1" failed
  [[ -n $(field "$1" error_code) ]] || fail "$1 has no error code"
  [[ -n $(field "$1" error_message) ]] || fail "$1 has no error message"
  [[ -n $(field "$1" finished_at) ]] || fail "$1 has no finished_at"
  expect "states in the results of $1" "$(jq -r --arg id "$1" 'select(.id == $id).state' "$WORK/results")" failed
  expect "error codes in the dead letters of $1" \
    "$(jq -r --arg id "$1" 'select(.job == $id).error_code' "$WORK/letters")" "$(field "$1" error_code)"
  [[ -n $(jq -r --arg id "$1" 'select(.job == $id).error_message' "$WORK/letters") ]] ||
    fail "the dead letter of $1 gives no reason"
}

bad not-json <<<'a red heart, please'
bad binary < <(printf '\xff\x00\xfe{"version":1}')
bad empty-object <<<'{}'
bad no-prompt <<<'{"version":1,"type":"text-to-image"}'
bad empty-prompt <<<'{"version":1,"type":"text-to-image","prompt":""}'
bad unknown-field <<<'{"version":1,"type":"text-to-image","prompt":"x","promt":"y"}'
bad wrong-type <<<'{"version":1,"type":"text-to-image","prompt":["x"]}'
bad version <<<'{"version":2,"type":"text-to-image","prompt":"x"}'
bad job-type <<<'{"version":1,"type":"text-to-song","prompt":"x"}'
bad model <<<'{"version":1,"type":"text-to-image","prompt":"x","model":"no-such-model"}'
bad model-path <<<'{"version":1,"type":"text-to-image","prompt":"x","model":"../emoji"}'
bad n-zero <<<'{"version":1,"type":"text-to-image","prompt":"x","n":0}'
bad n-many <<<'{"version":1,"type":"text-to-image","prompt":"x","n":65}'
bad size <<<'{"version":1,"type":"text-to-image","prompt":"x","size":100}'
bad size-huge <<<'{"version":1,"type":"text-to-image","prompt":"x","size":4096}'
bad steps <<<'{"version":1,"type":"text-to-image","prompt":"x","steps":{"decoder":1001}}'
bad guidance <<<'{"version":1,"type":"text-to-image","prompt":"x","guidance":{"decoder":1e9}}'
bad sampler <<<'{"version":1,"type":"text-to-image","prompt":"x","sampler":{"decoder":"euler"}}'
bad eta <<<'{"version":1,"type":"text-to-image","prompt":"x","eta":{"decoder":0.5}}'
bad two-ids <<<'{"version":1,"type":"text-to-image","prompt":"x","id":"another"}'
bad megabyte < <(
  printf '{"version":1,"type":"text-to-image","prompt":"'
  head -c 1000000 /dev/zero | tr '\0' x
  printf '"}\n'
)
# names that swell sixfold in the dead letter's JSON, and a key of nearly a whole record, which is too long for an id
ids+=("$RUN-headers")
swollen=$(head -c 60000 /dev/zero | tr '\0' '\1')
kcat -P -b "$KAFKA" -t unclip.jobs -k "$RUN-headers" -H "a$swollen=1" -H "b$swollen=2" -H "c$swollen=3" -H "d$swollen=4" \
  <<<'headers, please'
{
  head -c 900000 /dev/zero | tr '\0' k
  printf '|%s long key\n' "$RUN"
} | kcat -P -b "$KAFKA" -t unclip.jobs -X message.max.bytes=1048000 -K '|'
job "$RUN-good" "a red heart"
within 120 all_told || fail "$(told results id) results and $(told letters job) dead letters of ${#ids[@]} bad jobs"
for id in "${ids[@]}"; do refused "$id"; done
await_state "$RUN-good" succeeded

# no id can be read: the dead letter alone tells
letters_with() { records unclip.dead-letter | jq -c --arg text "$1" 'select((.value // "") | contains($text))'; }
has_letter_with() { [[ -n $(letters_with "$1") ]]; }
produce '' <<<"$RUN keyless"
within 60 has_letter_with "$RUN keyless" || fail "no dead letter of the record without a key"
expect "number of dead letters without a key" "$(letters_with "$RUN keyless" | wc -l)" 1
within 60 has_letter_with "$RUN long key" || fail "no dead letter of the record with a long key"
expect "the long key in its dead letters" "$(letters_with "$RUN long key" | jq -c '[(.key | length), .truncated]')" '[1024,true]'

# long values and headers are cut in the dead letter
expect truncated "$(dead_letters_of "$RUN-megabyte" | jq .truncated)" true
expect "truncated headers" "$(dead_letters_of "$RUN-headers" | jq -c '[.truncated, (.headers | length)]')" '[true,4]'
