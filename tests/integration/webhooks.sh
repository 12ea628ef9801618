#!/usr/bin/env bash
# Webhooks: final records reach a receiver, signed and unchanged; what fails is tried again with back-off, what is
# refused or never taken becomes a dead letter; a slow receiver holds nobody up; kill -9 loses nothing.
source "$(dirname "$0")/lib.sh"
use_cluster # before there is a secret: unclip-webhooks is started below
python3 "$ROOT/tests/integration/webhook_receiver.py" "$WORK" whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw &
receiver=$!

clean_up() {
  local result=$?
  kill $receiver
  cluster stop webhooks-0
  return $result
}
trap 'clean_up && finish || finish' EXIT

printf '%s\n' whsec_bmV3LXNlY3JldC1vZi0zMi1ieXRlcy1pbi1hbGwtLS0= whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw >"$WORK/secrets"
within 60 test -e "$WORK/port" || fail "the receiver does not listen"
port=$(cat "$WORK/port")
here=http://127.0.0.1:$port there=http://localhost:$port # two hosts, to the sender
touch "$WORK/requests"
export UNCLIP_WEBHOOK_SECRET=@$WORK/secrets UNCLIP_FETCH=public,127.0.0.1:$port,localhost:$port
export UNCLIP_WEBHOOK_TRIES=4 UNCLIP_WEBHOOK_BASE_MS=200 UNCLIP_WEBHOOK_MAX_MS=3000 UNCLIP_WEBHOOK_TIMEOUT_MS=60000
export UNCLIP_WEBHOOK_HOST_SENDS=2
cluster start webhooks-0

# ask NAME URL: a job that fails at once, for want of its model, and names a webhook
ask() {
  jq -nc --arg url "$2" '{version: 1, type: "text-to-image", prompt: "a red heart", model: "none-such", webhook: $url}' |
    produce "$RUN-$1"
}

# requests KIND: those that came to the path /KIND/RUN
requests() { jq -c --arg path "/$1/$RUN" 'select(.path == $path)' "$WORK/requests"; }
has_requests() { (($(requests "$1" | wc -l) >= $2)); }
await_requests() { within 60 has_requests "$1" "$2" || fail "not $2 requests to $1 but: $(requests "$1")"; }

# value_of ID: the final record as it stands in Kafka
value_of() { read_topic unclip.results '%k %s' | sed -n "s/^$1 //p"; }

# delivered KIND NAME COUNT: in so many tries, each signed and whole, with one id
delivered() {
  expect "tries of $2" "$(requests "$1" | wc -l)" "$3"
  expect "signatures of $2" "$(requests "$1" | jq -c '[.valid, .signatures]' | sort -u)" '[true,2]'
  expect "ids of $2" "$(requests "$1" | jq -r .id | sort -u | wc -l)" 1
  expect "body of $2" "$(requests "$1" | jq -r .body | sort -u)" "$(value_of "$RUN-$2")"
}

# letters NAME: the dead letters of its webhook; the other one of this job is the coordinator's
letters() { dead_letters_of "$RUN-$1" | jq -c 'select(.source.topic == "unclip.results")'; }
has_letter() { [[ -n $(letters "$1") ]]; }

# given_up NAME CODE TEXT: its webhook is one dead letter, of that code, which says so
given_up() {
  within 60 has_letter "$1" || fail "no dead letter of the webhook of $1"
  expect "letters of $1" "$(letters "$1" | wc -l)" 1
  expect "code of $1's letter" "$(letters "$1" | jq -r .error_code)" "$2"
  letters "$1" | jq -r .error_message | grep -qF -- "$3" || fail "$1's letter does not say '$3': $(letters "$1")"
  expect "value in $1's letter" "$(letters "$1" | jq -r .value)" "$(value_of "$RUN-$1")"
}

# a picture, told while the receivers of two other jobs do not answer, and a third one waits for these
for name in slow-1 slow-2 slow-3; do ask $name "$here/slow/$RUN"; done
await_requests slow 2
job "$RUN-picture" "a red heart" "\"webhook\": \"$there/ok/$RUN\""
await_state "$RUN-picture" succeeded
await_requests ok 1
delivered ok picture 1
expect "state in the body" "$(requests ok | jq -r '.body | fromjson | .state')" succeeded
expect "requests under way to one host" "$(requests slow | wc -l)" 2
touch "$WORK/slow-open"
await_requests slow 3

# tried again: not before the time that the receiver asks for
ask flaky "$there/flaky/$RUN"
await_requests flaky 3
delivered flaky flaky 3
waited=$(requests flaky | jq -s '.[2].at - .[1].at >= 2')
expect "whether Retry-After was honoured" "$waited" true

# answers that end it at once, and a long one that is none of our business
ask gone "$there/gone/$RUN"
ask page "$there/page/$RUN"
given_up gone url_refused 'HTTP 410'
expect "tries of gone" "$(requests gone | wc -l)" 1
await_requests page 1

# never taken; redirected, which is not followed; places that may not be reached
ask never "$there/never/$RUN"
ask moved "$there/moved/$RUN"
ask metadata http://169.254.169.254/latest
ask port http://127.0.0.1:1/
ask name "https://user:secret@example.com/"
given_up never fetch_failed 'given up after 4 tries: the receiver answers HTTP 500'
given_up moved fetch_failed 'HTTP 302'
given_up metadata url_refused 'no public address'
given_up port url_refused 'must be the scheme'
given_up name url_refused 'user or a password'
delivered never never 4
expect "requests after the redirect" "$(requests ok | wc -l)" 1
expect "tries of page" "$(requests page | wc -l)" 1

# killed between two tries, and not there when the next job ends: both are told
ask shut "$there/shut/$RUN"
await_requests shut 1
kill_now webhooks-0
ask late "$there/ok/$RUN"
within 60 has_result "$RUN-late" || fail "no result of late"
touch "$WORK/shut-open"
before=$(requests shut | wc -l)
cluster start webhooks-0
await_requests shut $((before + 1))
delivered shut shut $((before + 1))
await_requests ok 2

# what was not asked for: no requests of others, none in vain; secrets are not in the log
expect "bad signatures" "$(jq -c 'select(.valid | not)' "$WORK/requests" | wc -l)" 0
! grep -q "whsec_\|MfKQ9r8" "$UNCLIP_HOME"/logs/webhooks-0.log* || fail "a secret is in the log"
expect "hidden secret" "$(UNCLIP_WEBHOOK_SECRET=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw "$UNCLIP_BIN/unclip-webhooks" \
  --dump-config | sed -n 's/^webhook-secret = //p')" '(hidden)  # environment'
ask bad ftp://example.com/
await_state "$RUN-bad" failed
expect "code of a webhook that is no URL" "$(field "$RUN-bad" error_code)" invalid_job
