# shellcheck shell=bash
# Which TCP ports the cluster's servers use.

# port_free PORT: nobody listens on it
port_free() {
  local hex
  printf -v hex '%04X' "$1"
  ! awk -v port=":$hex\$" '$2 ~ port && $4 == "0A" { found = 1 } END { exit !found }' \
    /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

# port_claimed PORT: a process of another cluster lives that looks for its own server there, which is gone. It would take
# ours for it: a worker that a killed run left joins our groups, and takes the slot of a worker of ours.
port_claimed() {
  local pid mark
  for pid in $({ grep -lzsxF "127.0.0.1:$1" /proc/[0-9]*/cmdline || true; } | cut -d/ -f3); do
    mark=$({ tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^CLUSTER_PROCESS=//p'; } 2>/dev/null) || continue
    [[ -z $mark || $mark == "$STATE/"* ]] || return 0
  done
  return 1
}

port_usable() { port_free "$1" && ! port_claimed "$1"; }

# port_any: a usable one, below the range that outgoing connections use
port_any() {
  local port
  while :; do
    port=$((20000 + SRANDOM % 12000))
    if port_usable $port; then
      printf '%d' $port
      return
    fi
  done
}

# port_check VARIABLE: dies unless the port that the user asked for by it can be had
port_check() {
  local port=${!1}
  if ! [[ $port =~ ^[1-9][0-9]{0,4}$ ]] || ((port > 65535)); then misuse "$1='$port' is not a port"; fi
  port_free "$port" ||
    die "port $port ($1) is taken: choose another with $1=PORT, or unset it and a free one is picked"
}

# port_pick VARIABLE WISH...: what VARIABLE says, else the first wish that is usable, else any
port_pick() {
  local variable=$1 wish
  shift
  if [[ -n ${!variable:-} ]]; then
    port_check "$variable"
    printf '%d' "${!variable}"
    return
  fi
  for wish; do
    if [[ -n $wish ]] && port_usable "$wish"; then
      printf '%d' "$wish"
      return
    fi
  done
  port_any
}

# tcp_open HOST:PORT: somebody answers there
tcp_open() { (exec 3<>"/dev/tcp/${1%:*}/${1##*:}") 2>/dev/null; }
