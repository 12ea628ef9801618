# shellcheck shell=bash
# What runs: as a table for people, as JSON for scripts.

# process_state NAME: running (it serves), starting or dead
process_state() {
  if ! process_alive "$1"; then
    printf dead
  elif process_ready "$1"; then
    printf running
  else
    printf starting
  fi
}

# process_ready NAME: it serves
process_ready() {
  case $1 in
  kafka) tcp_open "$KAFKA" ;;
  redis) redis_answers ;;
  *) process_says_ready "$1" ;;
  esac
}

# status_rows: name, stage, slot, pid, state, seconds; a line each, "-" where there is none
status_rows() {
  local name pid stage slot seconds
  while read -r name; do
    pid=$(process_pid "$name") || pid=-
    stage=- slot=- seconds=-
    if [[ $name == *-* ]]; then stage=${name%-*} slot=${name##*-}; fi
    [[ $pid == - ]] || seconds=$(process_seconds "$pid")
    printf '%s %s %s %s %s %s\n' "$name" "$stage" "$slot" "$pid" "$(process_state "$name")" "$seconds"
  done < <(process_names)
}

status_table() {
  local rows
  rows=$(status_rows)
  if [[ -z $rows ]]; then
    printf 'nothing runs in %s\n' "$STATE"
    return
  fi
  printf 'kafka %s   redis %s   pictures in %s\n' "$KAFKA" "$REDIS" "$STATE/artifacts"
  awk 'BEGIN { layout = "%-16s %-12s %4s %8s  %-9s %s\n"
               printf layout, "NAME", "STAGE", "SLOT", "PID", "STATE", "UPTIME" }
       { printf layout, $1, $2, $3, $4, $5, $6 == "-" ? "-" : $6 "s" }' <<<"$rows"
}

status_json() {
  status_rows | jq -Rn --arg kafka "$KAFKA" --arg redis "$REDIS" \
    --arg home "$STATE" --arg artifacts "$STATE/artifacts" '
    def known: if . == "-" then null else . end;
    def count: known | if . == null then null else tonumber end;
    {kafka: $kafka, redis: $redis, home: $home, artifacts: $artifacts,
     processes: [inputs | split(" ") | {name: .[0], stage: (.[1] | known), slot: (.[2] | count),
                 pid: (.[3] | count), state: .[4], seconds: (.[5] | count)}]}'
}
