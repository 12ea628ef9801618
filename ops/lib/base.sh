# shellcheck shell=bash
# What every script of ops/ shares: where things are, how to talk, how to wait.
# Sourced first; sets ROOT (the checkout), STATE (the cluster's folder) and BIN (the programs).
# Next to read: process.sh.

# shellcheck disable=SC2034  # used by those who source this
ROOT=$(cd "${BASH_SOURCE[0]%/*}/../.." && pwd)
STATE=$(realpath -m "${UNCLIP_HOME:-$ROOT/.unclip}")
BIN=${UNCLIP_BIN:-$ROOT/build/bin}
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/unclip
PROGRAM=${0##*/}
readonly ROOT STATE BIN CACHE PROGRAM
export LC_ALL=C.UTF-8

# say TEXT: talk goes to stderr, data to stdout
say() { printf '%s\n' "$*" >&2; }

# die SENTENCE: the one way out of a failed script
die() {
  say "$PROGRAM: $*"
  exit 1
}

# misuse SENTENCE: wrong arguments
misuse() {
  say "$PROGRAM: $*"
  exit 2
}

# wait_until SECONDS COMMAND...: probes until COMMAND succeeds; false when the time is over
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# quietly LOG COMMAND...: the command's noise goes to LOG
quietly() {
  local log=$1
  shift
  mkdir -p "${log%/*}"
  "$@" >"$log" 2>&1 </dev/null
}

# show_end LOG: the last lines of a log, indented
show_end() {
  [[ -s $1 ]] || return 0
  tail -n "${2:-8}" "$1" | sed 's/^/  /' >&2
}

# elapsed MILLISECONDS: "0.8 s", "12.3 s"
elapsed() { printf '%d.%d s' $(($1 / 1000)) $(($1 % 1000 / 100)); }

# now_ms: a clock for durations
now_ms() { printf '%d' $((${EPOCHREALTIME/[.,]/} / 1000)); }
