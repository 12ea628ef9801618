# shellcheck shell=bash
# Which TCP ports the cluster's servers use.

# port_free PORT: nobody listens on it
port_free() {
  local hex
  printf -v hex '%04X' "$1"
  ! awk -v port=":$hex\$" '$2 ~ port && $4 == "0A" { found = 1 } END { exit !found }' \
    /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

# port_any: a free one, below the range that outgoing connections use
port_any() {
  local port
  while :; do
    port=$((20000 + SRANDOM % 12000))
    if port_free $port; then
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

# port_pick VARIABLE WISH...: what VARIABLE says, else the first wish that is free, else any
port_pick() {
  local variable=$1 wish
  shift
  if [[ -n ${!variable:-} ]]; then
    port_check "$variable"
    printf '%d' "${!variable}"
    return
  fi
  for wish; do
    if [[ -n $wish ]] && port_free "$wish"; then
      printf '%d' "$wish"
      return
    fi
  done
  port_any
}

# tcp_open HOST:PORT: somebody answers there
tcp_open() { (exec 3<>"/dev/tcp/${1%:*}/${1##*:}") 2>/dev/null; }
