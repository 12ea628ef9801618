# shellcheck shell=bash
# unclip's own processes: the coordinator, the sender of webhooks, and a pool of workers per stage. A process is
# one slot of one of them, and its slot, a stable number from 0, makes its name: decoder-1.

POOLS=(coordinator webhooks text-encode prior image-encode decoder upsampler-1 upsampler-2)

pool_known() { [[ " ${POOLS[*]} " == *" $1 "* ]]; }

# pool_slots POOL: how many slots it is to have
pool_slots() { cat "$STATE/slots/$1" 2>/dev/null || pool_default "$1"; }

# pool_default POOL: webhooks are sent where there is a secret to sign them with
pool_default() {
  if [[ $1 == webhooks && -z ${UNCLIP_WEBHOOK_SECRET:-} ]]; then printf 0; else printf 1; fi
}

pool_set_slots() {
  mkdir -p "$STATE/slots"
  printf '%d\n' "$2" >"$STATE/slots/$1"
}

# pool_names POOL: the names of its slots
pool_names() {
  local slot
  for ((slot = 0; slot < $(pool_slots "$1"); slot++)); do printf '%s-%d\n' "$1" $slot; done
}

# slots_wanted: the name of every process that "up" keeps alive, servers aside
slots_wanted() {
  local pool
  for pool in "${POOLS[@]}"; do pool_names "$pool"; done
}

# slot_command NAME: the command line, NUL after each word
slot_command() {
  local pool=${1%-*} slot=${1##*-} ranks=${UNCLIP_MPI_RANKS:-2}
  case $pool in
  coordinator) printf '%s\0' "$BIN/unclip-coordinator" ;;
  webhooks)
    printf '%s\0' "$BIN/unclip-webhooks" --slot "$slot" --kafka "$KAFKA"
    return
    ;;
  upsampler-2)
    printf '%s\0' "$ROOT/ops/mpi-worker" "$ranks" "$BIN/unclip-worker" "$pool" \
      --threads "${UNCLIP_THREADS:-$(threads_for "$ranks")}"
    ;;
  *) printf '%s\0' "$BIN/unclip-worker" "$pool" ;;
  esac
  printf '%s\0' --slot "$slot" --kafka "$KAFKA" --redis "$REDIS" \
    --artifacts "${UNCLIP_ARTIFACTS:-$STATE/artifacts}" --models "${UNCLIP_MODELS:-$ROOT/models}"
}

# threads_for RANKS: this host's cores, divided
threads_for() {
  local threads=$(($(nproc) / $1))
  printf '%d' $((threads > 0 ? threads : 1))
}

# slot_start NAME
slot_start() {
  local command
  mapfile -d '' command < <(slot_command "$1")
  process_start "$1" "${command[@]}"
}
