#!/usr/bin/env bash
# A job goes in through kcat, walks through its states, and a 1024x1024 picture comes out.
source "$(dirname "$0")/lib.sh"
use_cluster
id=$RUN

# walk: every state that a poller sees, in order, until the job ends
walk() {
  local state last=''
  while [[ ! $last =~ ^(succeeded|failed)$ ]]; do
    ((SECONDS < 300)) || fail "job $id is still '$last' after 300 s"
    state=$(field "$id" state)
    [[ $state == "$last" ]] || printf '%s ' "$state"
    last=$state
  done
}

expect "the hash of an unknown id" "$(redis EXISTS "unclip:job:$id")" 0
# with so many steps that a poller cannot miss that it is running
echo '{"version":1,"type":"text-to-image","prompt":"a red heart","steps":{"decoder":50}}' |
  kcat -P -b "$KAFKA" -t unclip.jobs -k "$id"
states=$(walk)
[[ $states =~ ^('accepted ')?('queued ')?'running succeeded '$ ]] || fail "the states were '$states'"

for name in state type created_at updated_at finished_at stage step steps progress images_total \
  images_done images_failed results seed error_code error_message; do
  expect "field $name exists" "$(redis HEXISTS "unclip:job:$id" $name)" 1
done
expect progress "$(field "$id" progress | jq '. == 1')" true
expect images_done "$(field "$id" images_done)" 1
expect images_failed "$(field "$id" images_failed)" 0
expect error_code "$(field "$id" error_code)" ''

result=$(one_result "$id")
expect "state in the result" "$(jq -r .state <<<"$result")" succeeded
uri=$(jq -r '.images[0].uri' <<<"$result")
expect "the URI in Redis" "$(field "$id" results | jq -r '.[0]')" "$uri"
picture=$(path_of "$uri")
expect "size of the picture" "$(png_size "$picture")" 1024x1024
expect "sha256 of the picture" "$(sha256sum <"$picture" | cut -c1-64)" "$(jq -r '.images[0].sha256' <<<"$result")"
grep -qa 'http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia' "$picture" ||
  fail "the picture is not marked as made by AI"
for stage in text-encode prior decoder upsampler-1 upsampler-2; do
  field "$id" timings | jq -e --arg stage $stage '.[$stage] >= 0' >/dev/null || fail "no timing of $stage"
done
