# shellcheck shell=bash
# Debian packages: which ones a group needs (packages.txt), which are missing, how to get them.

# packages_of GROUP...: their names
packages_of() {
  local group
  for group; do
    awk -v group="$group" '$1 == group { print $2 }' "$ROOT/ops/packages.txt"
  done
}

# packages_missing GROUP...: those that dpkg does not have, nor anything that provides them
packages_missing() {
  comm -23 <(packages_of "$@" | sort -u) \
    <(dpkg-query -W -f '${db:Status-Status} ${Package}, ${Provides}\n' 2>/dev/null |
      sed -n 's/^installed //p' | sed 's/ *([^)]*)//g; s/, */\n/g' | sort -u)
}

# as_root COMMAND...: itself as root, else sudo (which may ask on a terminal)
as_root() {
  if ((EUID == 0)); then
    "$@"
  elif [[ -t 0 ]]; then
    sudo env DEBIAN_FRONTEND=noninteractive "$@"
  else
    sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
  fi
}

# apt_install PACKAGE...
apt_install() {
  export DEBIAN_FRONTEND=noninteractive
  as_root apt-get -o Acquire::Retries=3 update &&
    as_root apt-get -o Acquire::Retries=3 install -y --no-install-recommends "$@"
}

# packages_install GROUP...: brings in what is missing; the noise goes to a log
packages_install() {
  local log=$CACHE/apt.log missing
  missing=$(packages_missing "$@" | tr '\n' ' ')
  missing=${missing% }
  [[ -n $missing ]] || return 0
  command -v apt-get >/dev/null ||
    die "missing packages: $missing (this is not Debian: install their like by hand)"
  ((EUID == 0)) || command -v sudo >/dev/null ||
    die "missing packages: $missing (needs root or sudo to install them)"
  ((EUID == 0)) || [[ -t 0 ]] || sudo -n true 2>/dev/null ||
    die "missing packages: $missing (sudo wants a password: run ops/setup in a terminal)"
  say "installing Debian packages: $(wc -w <<<"$missing") missing (log: $log)"
  # shellcheck disable=SC2086  # a list of words
  quietly "$log" apt_install $missing ||
    die "missing packages: $missing ($(apt_trouble "$log"); log: $log)"
}

# apt_trouble LOG: why it failed, in a few words
apt_trouble() {
  if grep -qE 'Could not resolve|Could not connect|Failed to fetch|Temporary failure|Unable to locate' "$1"; then
    printf 'no network, or the package mirror does not answer'
  else
    printf 'apt-get failed'
  fi
}
