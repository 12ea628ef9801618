# shellcheck shell=bash
# oneDNN 3, which Debian 12 does not have, as PyPI's package of it with GNU's OpenMP.

ONEDNN3=onednn-devel-cpu-gomp==2023.2.0 # oneDNN 3.2.0

# onednn3_install: makes it once, and sets UNCLIP_ONEDNN_ROOT for the preset onednn3
onednn3_install() {
  export UNCLIP_ONEDNN_ROOT=$CACHE/onednn3
  [[ ! -e $UNCLIP_ONEDNN_ROOT/lib/libdnnl.so.3 ]] || return 0
  say "installing $ONEDNN3 into $UNCLIP_ONEDNN_ROOT"
  if ! { python3 -m venv "$UNCLIP_ONEDNN_ROOT" && "$UNCLIP_ONEDNN_ROOT/bin/pip" install --quiet "$ONEDNN3"; }; then
    die "could not install $ONEDNN3"
  fi
}
