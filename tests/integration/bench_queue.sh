#!/usr/bin/env bash
# ./bench/queue measures: a short run of its parts, on a cluster of its own. Its figures mean little here; that an idle
# group lags nothing, and that a slot is taken over, must hold always.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
answer=$("$ROOT/bench/queue" --short --json --only latency --only throughput --only submissions --only takeover --only floor | tail -n 1)
printf '%s\n' "$answer"
jq -e '[.p50_ms, .p99_ms, .tasks_per_s, .worker_tasks_per_s_64, .worker_tasks_per_s_512, .submissions_per_s,
  .admitted_per_s, .takeover_ms, .floor_p50_ms] | all(type == "number" and . > 0)' <<<"$answer" >/dev/null
jq -e '.idle_lag == 0 and .takeover_max_ms < 10000' <<<"$answer" >/dev/null
