# shellcheck shell=bash
# What the integration tests share. Each test is one script on one topic that starts with
#   source "$(dirname "$0")/lib.sh"
# Run by ctest they share one cluster (cluster_fixture.sh); run by hand a test starts its own, and stops it.
# Every job id is new in each run, so that tests never see each other's jobs. Nothing here sleeps for
# order: it polls for what must become true, with a limit.
set -euo pipefail

# shellcheck disable=SC2034  # used by the tests
RUN=$(basename "$0" .sh)-$(date +%s)-$$
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
TEST=$(basename "$0" .sh)
WORK=$(mktemp -d "${TMPDIR:-/tmp}/unclip-test.XXXXXX")
export UNCLIP_BIN=${UNCLIP_BIN:-$ROOT/build/bin}
# few steps: these tests are about the way, not about the pictures
QUICK='"steps":{"prior":2,"decoder":2,"upsampler-1":2,"upsampler-2":2}'

cluster() { "$ROOT/ops/cluster" "$@"; }

fail() {
  printf 'FAILED %s: %s\n' "$TEST" "$*" >&2
  exit 1
}

finish() {
  local result=$?
  if ((result)) && [[ -n ${KAFKA:-} ]]; then cluster logs | cut -c1-300 >&2; fi
  if [[ -n ${OWN_CLUSTER:-} ]]; then
    cluster down
    [[ -n ${UNCLIP_TEST_KEEP:-} ]] || rm -rf "$UNCLIP_HOME"
  fi
  rm -rf "$WORK"
  ((result)) || printf 'ok %s (%d s)\n' "$TEST" "$SECONDS"
}
trap finish EXIT
trap 'exit 130' INT TERM

# use_cluster: starts one unless ctest did; sets KAFKA, REDIS and the programs' variables
use_cluster() {
  if [[ -z ${UNCLIP_HOME:-} ]]; then
    OWN_CLUSTER=1
    UNCLIP_HOME=$(mktemp -d "${TMPDIR:-/tmp}/unclip-home.XXXXXX")
    export UNCLIP_HOME
  fi
  cluster up
  eval "$(cluster env)"
  KAFKA=$UNCLIP_KAFKA REDIS=$UNCLIP_REDIS REDIS_PORT=${UNCLIP_REDIS##*:}
  export KAFKA REDIS REDIS_PORT
}

# pid_of NAME: of one of the cluster's processes
pid_of() { cat "$UNCLIP_HOME/run/$1.pid"; }

dead() { ! kill -0 "$1" 2>/dev/null; }

# kill_now NAME...: kills those processes; returns when they are gone, which on a busy machine takes a moment
kill_now() {
  local name pid pids=()
  for name; do pids+=("$(pid_of "$name")"); done
  kill -KILL "${pids[@]}"
  for pid in "${pids[@]}"; do within 60 dead "$pid" || fail "process $pid outlives SIGKILL"; done
}

# expect WHAT ACTUAL WANTED
expect() { [[ $2 == "$3" ]] || fail "$1 is '$2', not '$3'"; }

# within SECONDS COMMAND...: polls until it succeeds
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

redis() { timeout 120 redis-cli -h "${REDIS%:*}" -p "${REDIS##*:}" "$@"; }

# field ID NAME: of a job's status hash
field() { redis HGET "unclip:job:$1" "$2"; }

# produce KEY: stdin as one record of unclip.jobs; an empty KEY is none
produce() {
  local key=()
  cat >"$WORK/record"
  [[ -z $1 ]] || key=(-k "$1")
  timeout 120 kcat -P -b "$KAFKA" -t unclip.jobs -X message.max.bytes=1048000 "${key[@]}" "$WORK/record"
}

# job KEY PROMPT [MORE_JSON]: produces a small, quick job
job() {
  jq -nc --arg prompt "$2" "{version:1, type:\"text-to-image\", prompt:\$prompt, size:64, seed:1, $QUICK} + {${3:-}}" |
    produce "$1"
}

# read_topic TOPIC FORMAT: its committed records, as kcat prints them. A broker shows a record some time after its
# transaction has ended, so what is read to find something is read until it is there.
read_topic() {
  timeout 120 kcat -C -e -q -b "$KAFKA" -t "$1" -o beginning -X isolation.level=read_committed -X fetch.wait.max.ms=1 -f "$2\n"
}

# records TOPIC: its JSON values, one a line
records() { read_topic "$1" %s | sed '/^$/d'; }

# results_of ID: every final record of a job (there must be one)
results_of() { records unclip.results | jq -c --arg id "$1" 'select(.id == $id)'; }

# dead_letters_of ID
dead_letters_of() { records unclip.dead-letter | jq -c --arg id "$1" 'select(.job == $id)'; }

# has_letters ID COUNT: at least so many
has_letters() { (($(dead_letters_of "$1" | wc -l) >= $2)); }

# one_letter ID: its only dead letter
one_letter() {
  within 60 has_letters "$1" 1 || fail "no dead letter of $1"
  expect "number of dead letters of $1" "$(dead_letters_of "$1" | wc -l)" 1
  dead_letters_of "$1"
}

state_is() { [[ $(field "$1" state) == "$2" ]]; }

job_ended() { [[ $(field "$1" state) =~ ^(succeeded|failed|cancelled|expired)$ ]]; }

# await_state ID STATE [SECONDS]: the job ends, and so
await_state() {
  within "${3:-240}" job_ended "$1" || fail "job $1 is still '$(field "$1" state)' after ${3:-240} s"
  expect "state of $1 ($(field "$1" error_message))" "$(field "$1" state)" "$2"
}

# one_result ID: its only final record
one_result() {
  within 60 has_result "$1" || fail "no record of $1 in unclip.results"
  expect "number of results of $1" "$(results_of "$1" | wc -l)" 1
  results_of "$1"
}

has_result() { [[ -n $(results_of "$1") ]]; }

# path_of URI
path_of() { printf '%s' "${1#file://}"; }

# png_size PATH: "64x64", from the header
png_size() {
  local bytes
  read -ra bytes < <(od -An -tu1 -w24 -N24 "$1")
  [[ ${bytes[*]:0:8} == '137 80 78 71 13 10 26 10' ]] || fail "'$1' is not a PNG"
  printf '%dx%d' $((bytes[18] * 256 + bytes[19])) $((bytes[22] * 256 + bytes[23]))
}

# pixels_of PATH: a digest of a PNG's pixel data, its text chunks aside
pixels_of() {
  local file=$1 at=8 length type
  while read -r length type < <(chunk_at "$file" $at); do
    [[ $type != IDAT ]] || tail -c +$((at + 9)) "$file" | head -c "$length"
    [[ $type != IEND ]] || break
    at=$((at + length + 12))
  done | sha256sum | cut -c1-64
}

# chunk_at PATH OFFSET: length and type of the PNG chunk that starts there
chunk_at() {
  od -An -tu1 -w4 -j "$2" -N 4 "$1" | awk '{ printf "%d ", (($1 * 256 + $2) * 256 + $3) * 256 + $4 }'
  tail -c +$(($2 + 5)) "$1" | head -c 4
  echo
}
