#!/usr/bin/env bash
# Starts (up) or stops (down) the cluster that the tests of one ctest run share, in UNCLIP_HOME.
set -euo pipefail
cluster=$(dirname "$0")/../../ops/cluster
case $1 in
up)
  "$cluster" down
  rm -rf "$UNCLIP_HOME"
  "$cluster" up
  ;;
down)
  "$cluster" down
  [[ -n ${UNCLIP_TEST_KEEP:-} ]] || rm -rf "$UNCLIP_HOME"
  ;;
esac
