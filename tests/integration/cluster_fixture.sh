#!/usr/bin/env bash
# Starts (up) or stops (down) the cluster that the tests of one ctest run share, in UNCLIP_HOME.
set -euo pipefail
cluster=$(dirname "$0")/../../ops/cluster

# end_leftovers: kills what a killed run's tests left at work on this folder, before it works on the new cluster
end_leftovers() {
  local file pid words
  for file in /proc/[0-9]*/environ; do
    pid=${file//[^0-9]/}
    if [[ $pid == "$$" ]] || ! grep -qzsxF "UNCLIP_HOME=$UNCLIP_HOME" "$file"; then continue; fi
    words=$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") || continue
    [[ $words != *tests/integration/* && $words != */ops/cluster* ]] || kill -KILL "$pid" 2>/dev/null || true
  done
}

case $1 in
up)
  end_leftovers
  "$cluster" down
  rm -rf "$UNCLIP_HOME"
  "$cluster" up
  ;;
down)
  "$cluster" down
  [[ -n ${UNCLIP_TEST_KEEP:-} ]] || rm -rf "$UNCLIP_HOME"
  ;;
esac
