#!/usr/bin/env bash
# A queue with 100,000 waiting bulk jobs: an interactive job hardly feels it, the coordinator's memory grows by less than
# 1 KiB a job, and one that takes over finds all of them. On a cluster of its own, which is thrown away with what waits.
# The shipped model at default settings: a batch in hand is never interrupted, and bulk ones are kept short.
# environment: UNCLIP_TEST_JOBS (default 100000), UNCLIP_TEST_FIGURES (a file for the measured figures, as JSON)
source "$(dirname "$0")/lib.sh"
UNCLIP_HOME=$WORK/home
export UNCLIP_HOME
OWN_CLUSTER=1
jobs=${UNCLIP_TEST_JOBS:-100000} warm=$((${UNCLIP_TEST_JOBS:-100000} / 10))
cluster up
eval "$(cluster env)"
KAFKA=$UNCLIP_KAFKA REDIS=$UNCLIP_REDIS

rss_kb() { awk '/^VmRSS/ { print $2 }' "/proc/$(pid_of coordinator-0)/status"; }
waiting() { redis HGETALL unclip:queue | paste - - | awk '$1 ~ /:bulk:waiting$/ { n += $2 } END { print n + 0 }'; }
# taken: bulk pictures that the coordinator has seen since it started
taken() { redis HGETALL unclip:queue | paste - - | awk '$1 ~ /:bulk:(waiting|in_flight|ended)$/ { n += $2 } END { print n + 0 }'; }
taken_all() { (($(taken) >= $1)); }
# bulk FROM TO: jobs of twenty clients, one a line
bulk() {
  awk -v from="$1" -v to="$2" -v run="$RUN" -v steps="$QUICK" 'BEGIN { for (i = from; i < to; i++) printf \
    "%s-%06d\t{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a small red fox in fresh snow at dusk, number %d of " \
    "a long series, soft light\",\"size\":64,\"seed\":%d,\"class\":\"bulk\",\"client\":\"client-%d\",%s}\n",
    run, i, i, i, i % 20, steps }' | kcat -P -b "$KAFKA" -t unclip.jobs -K $'\t'
}
# interactive NAME N: the median of their milliseconds, one after the other
interactive() {
  local i
  for ((i = 0; i < $2; i++)); do
    job "$RUN-$1-$i" "a red heart $1 $i" '"steps": {"prior": 10, "decoder": 10}'
    await_state "$RUN-$1-$i" succeeded 60
    [[ -z ${UNCLIP_TEST_KEEP:-} ]] || redis HMGET "unclip:job:$RUN-$1-$i" created_at finished_at timings | paste - - - >&2
    redis HMGET "unclip:job:$RUN-$1-$i" created_at finished_at | paste - - |
      jq -R 'split("\t") | map(sub("\\.(?<ms>[0-9]+)Z$"; "Z \(.ms)") | split(" ") | (.[0] | fromdate) * 1000 + (.[1] | tonumber))
        | .[1] - .[0]'
  done | sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'
}

interactive warm 3 >/dev/null
idle=$(interactive idle 9)

bulk 0 $warm
within 120 taken_all $warm || fail "$(taken) of $warm jobs are taken"
before=$(rss_kb) already=$(waiting) began=$SECONDS
bulk $warm "$jobs"
within 900 taken_all "$jobs" || fail "only $(taken) of $jobs jobs are taken"
took=$((SECONDS - began))
each=$((($(rss_kb) - before) * 1024 / ($(waiting) - already)))
loaded=$(interactive loaded 9)
printf '%d jobs wait (taken in %d s): %d bytes of memory each, %d MiB in all; interactive %d ms, idle %d ms\n' \
  "$(waiting)" $took $each $(($(rss_kb) / 1024)) "$loaded" "$idle"
[[ -z ${UNCLIP_TEST_FIGURES:-} ]] || jq -n --argjson waiting "$(waiting)" --argjson taken_s $took --argjson job_bytes $each \
  --argjson memory_before_mib $((before / 1024)) --argjson memory_mib $(($(rss_kb) / 1024)) \
  --argjson idle_ms "$idle" --argjson loaded_ms "$loaded" '$ARGS.named' >"$UNCLIP_TEST_FIGURES"
((each < 1024)) || fail "the coordinator takes $each bytes for each waiting job"
((loaded <= 2 * idle)) || fail "an interactive job takes $loaded ms with a full queue, $idle ms without"

# the place of the last one, and a coordinator that takes over
last=$(printf '%s-%06d' "$RUN" $((jobs - 1)))
ahead=$("$UNCLIP_BIN/unclip" status --json "$last" | jq .queue_position)
((ahead > jobs / 20)) || fail "the last job of all has $ahead pictures ahead"
left=$(waiting) began=$SECONDS
redis DEL unclip:queue >/dev/null
kill_now coordinator-0
cluster up
all_back() { (($(waiting) >= left * 95 / 100)); }
within 300 all_back || fail "after a takeover $(waiting) of $left jobs wait"
printf 'after a takeover (%d s) %d jobs wait, %d MiB in all\n' $((SECONDS - began)) "$(waiting)" $(($(rss_kb) / 1024))
(($(waiting) <= left)) || fail "$(waiting) jobs wait, there were $left"
