# shellcheck shell=bash
# Redis: the status that people poll and the embedding cache.

# redis_start: at REDIS; returns before it serves. Debian ships the server's binary in redis-tools
# as redis-check-rdb; it is a server when called by that name.
redis_start() {
  local program
  program=$(command -v redis-server || command -v redis-check-rdb) || die "redis is missing: run ops/setup"
  mkdir -p "$STATE/redis"
  process_start redis bash -c 'exec -a redis-server "$@"' bash "$program" \
    --bind 127.0.0.1 --port "${REDIS##*:}" --dir "$STATE/redis" --daemonize no \
    --appendonly yes --appendfsync everysec --save '' --maxmemory-policy noeviction \
    --set-proc-title no
}

redis_answers() {
  [[ $(timeout 5 redis-cli -h "${REDIS%:*}" -p "${REDIS##*:}" ping 2>/dev/null) == PONG ]]
}
