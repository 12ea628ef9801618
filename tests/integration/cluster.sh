#!/usr/bin/env bash
# ops/cluster itself: side by side, taken ports, dead processes, and nothing left after down.
source "$(dirname "$0")/lib.sh"
UNCLIP_HOME=$WORK/home
export UNCLIP_HOME
OWN_CLUSTER=1

# marked: pids of this cluster's processes
marked() { { grep -lzs "^CLUSTER_PROCESS=$UNCLIP_HOME/" /proc/[0-9]*/environ || true; } | cut -d/ -f3; }
state_of() { cluster status --json | jq -r --arg name "$1" '.processes[] | select(.name == $name).state'; }

cluster up
expect "names" "$(cluster status --json | jq -r '[.processes[].name] | join(" ")')" \
  "kafka redis coordinator-0 decoder-0 image-encode-0 prior-0 text-encode-0 upsampler-1-0 upsampler-2-0"
expect "states" "$(cluster status --json | jq -r '[.processes[].state] | unique | join(" ")')" running
eval "$(cluster env)"

# up again keeps what runs and replaces what died
both_dead() { [[ $(state_of prior-0) == dead && $(state_of upsampler-2-0) == dead ]]; }
kafka=$(pid_of kafka) prior=$(pid_of prior-0)
kill -KILL "$prior" "$(pid_of upsampler-2-0)"
within 60 both_dead || fail "dead processes are not shown"
cluster up
expect "pid of kafka" "$(pid_of kafka)" "$kafka"
[[ $(pid_of prior-0) != "$prior" ]] || fail "prior-0 was not restarted"
expect "states" "$(cluster status --json | jq -r '[.processes[].state] | unique | join(" ")')" running

# another cluster beside it
expect "exit status" "$(
  UNCLIP_HOME=$WORK/other cluster up redis >/dev/null
  UNCLIP_HOME=$WORK/other cluster status --json | jq -r .processes[0].state
)" running
[[ $(UNCLIP_HOME=$WORK/other cluster status --json | jq -r .redis) != "$UNCLIP_REDIS" ]] || fail "two clusters share a port"
UNCLIP_HOME=$WORK/other cluster down

# the port of a server that is gone is not used as long as a process of its cluster is left, which would come to us
port=$(sed -n 's/^REDIS=.*://p' "$WORK/other/cluster.env")
CLUSTER_PROCESS=$WORK/gone/decoder-0 bash -c 'while :; do sleep 0.2; done' worker --redis "127.0.0.1:$port" &
stray=$!
UNCLIP_HOME=$WORK/other cluster up redis
kill $stray
[[ $(sed -n 's/^REDIS=.*://p' "$WORK/other/cluster.env") != "$port" ]] || fail "a server is where another cluster's is looked for"
UNCLIP_HOME=$WORK/other cluster down

# a port that is taken: one sentence
! UNCLIP_HOME=$WORK/third UNCLIP_REDIS_PORT=${UNCLIP_REDIS##*:} cluster up redis 2>"$WORK/err" || fail "a taken port is used"
expect "lines of the message" "$(wc -l <"$WORK/err")" 1
grep -qF "port ${UNCLIP_REDIS##*:} (UNCLIP_REDIS_PORT) is taken" "$WORK/err" || fail "the message is '$(cat "$WORK/err")'"

# a worker that hangs, and a rank whose mpirun was killed, are stopped all the same
kill -KILL "$(pid_of upsampler-2-0)"
kill -STOP "$(pid_of decoder-0)"
UNCLIP_STOP_SECONDS=3 cluster down
expect "processes left after down" "$(marked)" ''
expect "status after down" "$(cluster status --json | jq '.processes | length')" 0
