# shellcheck shell=bash
# The commands of ops/cluster, on top of the other files here.
# STATE/cluster.env holds the addresses KAFKA and REDIS, and KAFKA_CONTROLLER_PORT.

START_SECONDS=${UNCLIP_START_SECONDS:-60}
STOP_SECONDS=${UNCLIP_STOP_SECONDS:-30}

# cluster_lock: one of us at a time; the lock is file descriptor 9, which no child keeps
cluster_lock() {
  mkdir -p "$STATE"
  exec 9>"$STATE/lock"
  flock -w 300 9 || die "another ops/cluster has been busy in $STATE for 5 minutes"
}

cluster_load() {
  KAFKA='' REDIS='' KAFKA_CONTROLLER_PORT=''
  # shellcheck disable=SC1091  # written by cluster_save
  [[ ! -e $STATE/cluster.env ]] || source "$STATE/cluster.env"
}

cluster_save() {
  printf '%s=%q\n' KAFKA "$KAFKA" REDIS "$REDIS" KAFKA_CONTROLLER_PORT "$KAFKA_CONTROLLER_PORT" \
    >"$STATE/cluster.env.new"
  mv "$STATE/cluster.env.new" "$STATE/cluster.env"
}

# same_port VARIABLE ADDRESS: what runs is where the user wants it
same_port() {
  [[ -z ${!1:-} || ${!1} == "${2##*:}" ]] ||
    die "the cluster already runs on port ${2##*:}, not on $1=${!1}: ops/cluster down first"
}

# kafka_place, redis_place: the address of what runs, else a new one
kafka_place() {
  local port
  if process_alive kafka; then
    same_port UNCLIP_KAFKA_PORT "$KAFKA"
    return
  fi
  port=$(port_pick UNCLIP_KAFKA_PORT "${KAFKA##*:}" 9092) || exit
  address_set KAFKA "127.0.0.1:$port"
  KAFKA_CONTROLLER_PORT=$(port_pick UNCLIP_KAFKA_CONTROLLER_PORT $((port + 1))) || exit
}

redis_place() {
  local port
  if process_alive redis; then
    same_port UNCLIP_REDIS_PORT "$REDIS"
    return
  fi
  port=$(port_pick UNCLIP_REDIS_PORT "${REDIS##*:}" 6379) || exit
  address_set REDIS "127.0.0.1:$port"
}

# address_set VARIABLE ADDRESS: programs that know the old address must stop
address_set() {
  if [[ -n ${!1} && ${!1} != "$2" ]]; then
    slots_stop
  fi
  printf -v "$1" %s "$2"
}

slots_running() { process_names | grep -vxE 'kafka|redis' || true; }

# slots_stop: workers first, then the coordinators that hear of what they did
slots_stop() {
  local workers coordinators
  mapfile -t workers < <(slots_running | grep -v '^coordinator-')
  mapfile -t coordinators < <(slots_running | grep '^coordinator-')
  processes_stop "$STOP_SECONDS" "${workers[@]}"
  processes_stop "$STOP_SECONDS" "${coordinators[@]}"
}

# servers_up kafka|redis...: started together, then awaited
servers_up() {
  local name
  for name; do "${name}_place"; done
  cluster_save
  for name; do process_alive "$name" || "${name}_start"; done
  for name; do process_await "$name" "$START_SECONDS" "${name}_answers"; done
}

cluster_up() {
  local name began
  began=$(now_ms)
  for name; do [[ $name == kafka || $name == redis ]] || misuse "up takes 'kafka', 'redis' or nothing, not '$name'"; done
  if (($#)); then
    [[ $* != *kafka* ]] || process_alive kafka || kafka_jars
    servers_up "$@"
    return
  fi
  programs_check
  process_alive kafka || kafka_jars
  mkdir -p "$STATE/artifacts"
  servers_up redis kafka
  topics_make
  slots_up
  say "the cluster runs: kafka $KAFKA, redis $REDIS ($(elapsed $(($(now_ms) - began))))"
}

programs_check() {
  local file
  for file in unclip unclip-coordinator unclip-worker unclip-webhooks; do
    [[ -x $BIN/$file ]] || die "$BIN/$file is missing: run make first"
  done
}

topics_make() {
  local log=$STATE/logs/topics.log
  quietly "$log" timeout "$START_SECONDS" "$BIN/unclip" topics --create --partitions "${UNCLIP_PARTITIONS:-8}" \
    --kafka "$KAFKA" || {
    say "$PROGRAM: cannot make the topics; the end of $log:"
    show_end "$log"
    exit 1
  }
}

# slots_up: starts the slots that are wanted and do not run, restarts those whose program was rebuilt
slots_up() {
  local name started=() outdated=()
  for name in $(slots_running); do
    if process_alive "$name" && process_outdated "$name"; then outdated+=("$name"); fi
  done
  processes_stop "$STOP_SECONDS" "${outdated[@]}"
  for name in $(slots_wanted); do
    process_alive "$name" && continue
    slot_clear "$name"
    slot_start "$name"
    started+=("$name")
  done
  for name in "${started[@]}"; do slot_await "$name"; done
}

# slot_clear NAME: what a dead leader left behind (ranks whose mpirun was killed)
slot_clear() { kill_all KILL "$(process_pids "$1")"; }

slot_await() { process_await "$1" "$START_SECONDS" process_says_ready "$1"; }

cluster_down() {
  slots_stop
  process_stop_one redis
  process_stop_one kafka
  processes_sweep
  rm -f "$STATE"/run/*.pid
}

process_stop_one() {
  [[ ! -e $(pid_file "$1") ]] || processes_stop "$STOP_SECONDS" "$1"
}

cluster_scale() {
  local pool=${1:-} count=${2:-} name names
  pool_known "$pool" || misuse "no stage '$pool': it is one of ${POOLS[*]}"
  [[ $count =~ ^[0-9]{1,3}$ ]] || misuse "'$count' is not a number of workers (0 to 999)"
  process_alive kafka || die "the cluster does not run: ops/cluster up first"
  pool_set_slots "$pool" "$count"
  names=" $(pool_names "$pool" | tr '\n' ' ')"
  local surplus=()
  for name in $(slots_running); do
    if [[ ${name%-*} == "$pool" && $names != *" $name "* ]]; then surplus+=("$name"); fi
  done
  processes_stop "$STOP_SECONDS" "${surplus[@]}"
  # shellcheck disable=SC2086  # a list of words
  cluster_start $names
}

# names_check NAME...: dies unless each can be a process of this cluster
names_check() {
  local name
  (($#)) || misuse "needs the name of a process, as ops/cluster status shows it"
  for name; do
    [[ $name == kafka || $name == redis ]] && continue
    [[ $name =~ -[0-9]+$ ]] && pool_known "${name%-*}" && continue
    misuse "no process '$name': it is kafka, redis or STAGE-SLOT, such as decoder-0"
  done
}

cluster_start() {
  local name started=()
  for name; do
    process_alive "$name" && continue
    if [[ $name == kafka || $name == redis ]]; then
      servers_up "$name"
    else
      slot_clear "$name"
      slot_start "$name"
      started+=("$name")
    fi
  done
  for name in "${started[@]}"; do slot_await "$name"; done
}

cluster_stop() {
  names_check "$@"
  processes_stop "$STOP_SECONDS" "$@"
}

cluster_restart() {
  cluster_stop "$@"
  cluster_start "$@"
}

cluster_status() {
  case ${1:-} in
  '') status_table ;;
  --json) status_json ;;
  *) misuse "status takes --json or nothing, not '$1'" ;;
  esac
}

cluster_logs() {
  local follow=() name='' argument
  for argument; do
    if [[ $argument == -f ]]; then follow=(-F); else name=$argument; fi
  done
  if [[ -n $name ]]; then
    [[ -e $(log_file "$name") ]] || die "no log '$(log_file "$name")'"
    tail -n 40 "${follow[@]}" "$(log_file "$name")"
  else
    compgen -G "$STATE/logs/*.log" >/dev/null || die "no logs in $STATE/logs yet"
    tail -n 10 "${follow[@]}" "$STATE"/logs/*.log
  fi
}

cluster_env() {
  [[ -n $KAFKA ]] || die "no cluster in $STATE yet: ops/cluster up first"
  printf 'export UNCLIP_KAFKA=%q UNCLIP_REDIS=%q UNCLIP_ARTIFACTS=%q UNCLIP_MODELS=%q\n' \
    "$KAFKA" "$REDIS" "$STATE/artifacts" "${UNCLIP_MODELS:-$ROOT/models}"
}
