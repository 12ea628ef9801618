#!/usr/bin/env bash
# The kcat and redis-cli lines of the documents work as they stand.
source "$(dirname "$0")/lib.sh"
use_cluster

# examples FILE: its indented or fenced command lines that use kcat or redis-cli
examples() { sed -n 's/^ *\$\{0,1\} *\(\(echo\|kcat\|redis-cli\) .*\)$/\1/p' "$1" | grep -E 'kcat|redis-cli' || true; }

# run LINE: its output into $WORK/output
run() { timeout 120 bash -euo pipefail -c "$1" >"$WORK/output"; }

reads() { [[ $1 == *HGETALL* || $1 == *'kcat -C'* ]]; }

# shows LINE: it succeeds and there is something to read; a line that fails ends the test
shows() {
  run "$1" || fail "this line fails: $1"
  [[ -s $WORK/output ]]
}

files=("$ROOT/docs/protocol.md")
[[ ! -e $ROOT/README.md ]] || files+=("$ROOT/README.md")
seen=0
for file in "${files[@]}"; do
  mapfile -t lines < <(examples "$file")
  ((${#lines[@]})) || fail "no examples in $file"
  for line in "${lines[@]}"; do
    printf '%s\n' "$line"
    if reads "$line"; then # of a job that an earlier line sent: it may take a while
      within 300 shows "$line" || fail "$file: this line shows nothing: $line"
      seen=$((seen + 1))
    else
      run "$line" || fail "$file: this line fails: $line"
    fi
    cat "$WORK/output"
  done
done
((seen >= 2)) || fail "only $seen lines of the documents read something"
