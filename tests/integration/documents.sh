#!/usr/bin/env bash
# The kcat and redis-cli lines of the documents work as they stand.
source "$(dirname "$0")/lib.sh"
use_cluster

# examples FILE: its indented or fenced command lines that use kcat or redis-cli
examples() { sed -n 's/^ *\$\{0,1\} *\(\(echo\|kcat\|redis-cli\) .*\)$/\1/p' "$1" | grep -E 'kcat|redis-cli' || true; }

files=("$ROOT/docs/protocol.md")
[[ ! -e $ROOT/README.md ]] || files+=("$ROOT/README.md")
for file in "${files[@]}"; do
  mapfile -t lines < <(examples "$file")
  ((${#lines[@]})) || fail "no examples in $file"
  for line in "${lines[@]}"; do
    printf '%s\n' "$line"
    timeout 60 bash -euo pipefail -c "$line" || fail "$file: this line fails: $line"
  done
done
