# shellcheck shell=bash
# The broker: Apache Kafka in KRaft mode, one node, from Maven Central's jars.

KAFKA_VERSION=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$ROOT/ops/kafka/pom.xml")
KAFKA_JARS=$CACHE/kafka-$KAFKA_VERSION

# kafka_jars_whole DIR: every locked jar is there with its checksum
kafka_jars_whole() {
  [[ -d $1 ]] && (cd "$1" && sha256sum --quiet --strict -c "$ROOT/ops/kafka/jars.sha256") >/dev/null 2>&1
}

# kafka_jars: the jars into the cache, once
kafka_jars() {
  local log=$CACHE/maven.log new=$KAFKA_JARS.new
  kafka_jars_whole "$KAFKA_JARS" && return 0
  command -v mvn >/dev/null || die "mvn is missing: run ops/setup"
  say "fetching Apache Kafka $KAFKA_VERSION (log: $log)"
  rm -rf "$new"
  quietly "$log" mvn -B -f "$ROOT/ops/kafka/pom.xml" dependency:copy-dependencies \
    -DoutputDirectory="$new" || kafka_jars_failed "$log"
  kafka_jars_whole "$new" ||
    die "the fetched jars in $new differ from ops/kafka/jars.sha256"
  rm -rf "$KAFKA_JARS"
  mv "$new" "$KAFKA_JARS"
}

# kafka_jars_failed LOG: says why
kafka_jars_failed() {
  if grep -qE 'UnknownHost|Unknown host|Connect|Could not transfer' "$1"; then
    die "cannot fetch Apache Kafka's jars: no network, or Maven Central does not answer (log: $1)"
  fi
  die "cannot fetch Apache Kafka's jars (log: $1)"
}

# kafka_config PORT CONTROLLER_PORT: server.properties with this cluster's ports and folder
kafka_config() {
  sed -e "s|@PORT@|$1|g" -e "s|@CONTROLLER_PORT@|$2|g" -e "s|@DATA@|$STATE/kafka|g" \
    "$ROOT/ops/kafka/server.properties" >"$STATE/kafka.properties"
}

# kafka_java CLASS ARGUMENT...: the command line, NUL after each word
kafka_java() {
  printf '%s\0' java -Xms128m "-Xmx${UNCLIP_KAFKA_HEAP:-512m}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
    "-Dlog4j.configuration=file:$ROOT/ops/kafka/log4j.properties" -cp "$KAFKA_JARS/*" "$@"
}

# kafka_format: gives the data folder its identity, once
kafka_format() {
  local id command
  [[ ! -e $STATE/kafka/meta.properties ]] || return 0
  id=$(head -c 16 /dev/urandom | base64 | tr '+/' 'pl') # an id that begins with - would be an option
  mapfile -d '' command < <(kafka_java kafka.tools.StorageTool format -t "${id:0:22}" -c "$STATE/kafka.properties")
  quietly "$STATE/logs/kafka-format.log" timeout "$START_SECONDS" "${command[@]}" || {
    say "$PROGRAM: cannot prepare Kafka's folder; the end of $STATE/logs/kafka-format.log:"
    show_end "$STATE/logs/kafka-format.log"
    exit 1
  }
}

# kafka_answers: the broker at KAFKA serves metadata
kafka_answers() { tcp_open "$KAFKA" && timeout 10 kcat -b "$KAFKA" -L -m 5 >/dev/null 2>&1; }

# kafka_start: at KAFKA; returns before it serves
kafka_start() {
  local command
  command -v java >/dev/null || die "java is missing: run ops/setup"
  kafka_config "${KAFKA##*:}" "$KAFKA_CONTROLLER_PORT"
  kafka_format
  mapfile -d '' command < <(kafka_java kafka.Kafka "$STATE/kafka.properties")
  process_start kafka "${command[@]}"
}
