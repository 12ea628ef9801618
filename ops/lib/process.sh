# shellcheck shell=bash
# The cluster's processes, known by name: kafka, redis, coordinator-0, decoder-1, …
#
# Every process is started with CLUSTER_PROCESS=STATE/NAME in its environment, and its children
# (mpirun's ranks) inherit it. That mark, read back from /proc, says whose a process is, so a recycled
# pid is never taken for ours and nothing of ours is overlooked. run/NAME.pid remembers which
# process leads, and that NAME is meant to run at all; logs/NAME.log is what it says.

pid_file() { printf '%s/run/%s.pid' "$STATE" "$1"; }
log_file() { printf '%s/logs/%s.log' "$STATE" "$1"; }

# process_names: every name that was started and not stopped since, servers first
process_names() {
  local file name
  for name in kafka redis; do
    if [[ -e $(pid_file $name) ]]; then printf '%s\n' $name; fi
  done
  for file in "$STATE"/run/*-*.pid; do
    [[ -e $file ]] || continue
    file=${file##*/}
    printf '%s\n' "${file%.pid}"
  done
}

# pids_marked PATTERN: pids of live processes whose mark matches the regular expression
pids_marked() {
  { grep -lzsE "^CLUSTER_PROCESS=$1\$" /proc/[0-9]*/environ || true; } | cut -d/ -f3
}

# process_pids NAME: the leader and its children; with no NAME, the whole cluster
process_pids() { pids_marked "$(pattern_of "$STATE")/${1:-.*}"; }

# pattern_of TEXT: a regular expression that matches just TEXT
# shellcheck disable=SC2001  # a replacement with & needs sed here
pattern_of() { sed 's/[][\.*^$+?(){}|]/\\&/g' <<<"$1"; }

# process_pid NAME: the leader's pid; false when it is not alive
process_pid() {
  local pid tries=20 environment
  pid=$(cat "$(pid_file "$1")" 2>/dev/null) || return
  until environment=$(tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ") && [[ -n $environment ]]; do
    ((tries--)) && process_execs "$pid" || return
    sleep 0.01
  done
  grep -qxF "CLUSTER_PROCESS=$STATE/$1" <<<"$environment" && printf '%s' "$pid"
} 2>/dev/null

# process_execs PID: without an environment, but alive: it is becoming another program just now
process_execs() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) && [[ ${stat##*) } != Z* ]]
}

process_alive() { process_pid "$1" >/dev/null; }

# process_settled PID NAME: it has ended, or has become NAME and needs no more waiting
process_settled() { ! kill -0 "$1" 2>/dev/null || process_alive "$2"; }

# process_start NAME COMMAND...: in the background, in a session of its own, logging to its log
process_start() {
  local name=$1 log
  shift
  log=$(log_file "$name")
  mkdir -p "$STATE/run" "${log%/*}"
  [[ ! -e $log ]] || mv -f "$log" "$log.1"
  CLUSTER_PROCESS=$STATE/$name setsid "$@" >"$log" 2>&1 </dev/null 9>&- &
  printf '%s\n' $! >"$(pid_file "$name")"
  wait_until 5 process_settled $! "$name" || true
}

# process_await NAME SECONDS PROBE...: until PROBE succeeds; dies with the log's end when it does not
process_await() {
  local name=$1 seconds=$2 log
  shift 2
  log=$(log_file "$name")
  wait_until "$seconds" probe_or_dead "$name" "$@" || true
  if "$@" && process_alive "$name"; then return; fi
  if process_alive "$name" && process_forsaken "$name"; then
    die "kafka ended while $name started"
  elif process_alive "$name"; then
    say "$PROGRAM: $name is not ready after $seconds s; the end of $log:"
  else
    say "$PROGRAM: $name ended while it started; the end of $log:"
  fi
  show_end "$log"
  exit 1
}

# probe_or_dead NAME PROBE...: there is nothing more to wait for
probe_or_dead() { "${@:2}" || ! process_alive "$1" || process_forsaken "$1"; }

# process_forsaken NAME: the broker that it waits for has died; whoever starts that next must not wait for us
process_forsaken() { [[ $1 != kafka && $1 != redis ]] && ! process_alive kafka; }

# process_says_ready NAME: its log has the line that a program prints once it serves
process_says_ready() { grep -qsw ready "$(log_file "$1")"; }

# process_outdated NAME: its program was rebuilt since it started
process_outdated() {
  local pid
  for pid in $(process_pids "$1"); do
    [[ $(readlink "/proc/$pid/exe") != *' (deleted)' ]] || return 0
  done
  return 1
}

# process_terminate NAME: asks the leader to stop, or whoever is left of it
process_terminate() {
  local pid
  pid=$(process_pid "$1") || pid=$(process_pids "$1")
  kill_all TERM "$pid"
}

# kill_all SIGNAL "PIDS"
kill_all() {
  local pid
  for pid in $2; do kill "-$1" "$pid" 2>/dev/null || true; done
}

processes_gone() {
  local name
  for name; do [[ -z $(process_pids "$name") ]] || return 1; done
}

# processes_stop SECONDS NAME...: all at once; kills what has not stopped by then
processes_stop() {
  local seconds=$1 name
  shift
  for name; do process_terminate "$name"; done
  wait_until "$seconds" processes_gone "$@" || say "$PROGRAM: killing what did not stop within $seconds s"
  for name; do
    kill_all KILL "$(process_pids "$name")"
    rm -f "$(pid_file "$name")"
  done
  wait_until 10 processes_gone "$@" || die "cannot kill: $*"
}

# processes_sweep: kills everything that carries this cluster's mark, pid file or not
processes_sweep() { kill_all KILL "$(process_pids)"; }

# process_seconds PID: how long it has run
process_seconds() {
  local stat start up
  stat=$(<"/proc/$1/stat")
  read -ra stat <<<"${stat##*) }"
  start=${stat[19]}
  read -r up _ </proc/uptime
  printf '%d' $((${up%.*} - start / $(getconf CLK_TCK)))
}
