# shellcheck shell=bash
# Builds a CMake preset; the compiler is heard only when it fails.

# build_preset PRESET FOLDER [CMAKE_ARGUMENT...]
build_preset() {
  local preset=$1 log=$ROOT/$2/build.log
  shift 2
  quietly "$log" build_commands "$preset" "$@" || {
    say "$PROGRAM: the build failed; the end of $log:"
    show_end "$log" 30
    exit 1
  }
}

# build_commands PRESET [CMAKE_ARGUMENT...]
build_commands() {
  (cd "$ROOT" && cmake --preset "$@" && cmake --build --preset "$1")
}
