#!/usr/bin/env bash
# Pictures go to a bucket: the store itself against a real S3 server that checks signatures, then a
# job whose decoder writes there.
source "$(dirname "$0")/lib.sh"
readonly CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/unclip
readonly PROXY=s3proxy VERSION=2.6.0
readonly SUM=12e5e88d805cfed07f7d88b4a44a0d8ecb9f9d3cebeb544bb34fbc4ded1049d8
readonly JAR=$CACHE/$PROXY-$VERSION.jar

jar_whole() { [[ -f $JAR ]] && sha256sum --quiet --strict -c <<<"$SUM  $JAR" >/dev/null 2>&1; }

# fetch_jar: from Maven Central, once
fetch_jar() {
  jar_whole && return 0
  mkdir -p "$CACHE"
  mvn -B org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
    -Dartifact="org.gaul:$PROXY:$VERSION:jar:jar-with-dependencies" -DoutputDirectory="$WORK" \
    >"$CACHE/$PROXY.log" 2>&1 </dev/null || fail "cannot fetch $PROXY (log: $CACHE/$PROXY.log)"
  mv "$WORK/$PROXY-$VERSION-jar-with-dependencies.jar" "$JAR"
  jar_whole || fail "$JAR is not the locked one"
}

server=
stop_server() { [[ -z $server ]] || kill "$server" 2>/dev/null || true; }
trap 'stop_server; finish' EXIT

answers() { curl -s -o /dev/null "http://127.0.0.1:$1/"; }
# start_server: on a free port, with the bucket `pictures`
start_server() {
  local try port
  mkdir -p "$WORK/buckets/pictures"
  for try in 1 2 3 4 5; do
    port=$((20000 + RANDOM % 10000)) # below the ephemeral ones
    printf '%s\n' "s3proxy.endpoint=http://127.0.0.1:$port" s3proxy.authorization=aws-v2-or-v4 \
      "s3proxy.identity=$AWS_ACCESS_KEY_ID" "s3proxy.credential=$AWS_SECRET_ACCESS_KEY" \
      jclouds.provider=filesystem-nio2 jclouds.identity=local jclouds.credential=local \
      "jclouds.filesystem.basedir=$WORK/buckets" >"$WORK/s3.properties"
    java -jar "$JAR" --properties "$WORK/s3.properties" >"$WORK/s3.log" 2>&1 &
    server=$!
    export AWS_ENDPOINT_URL=http://127.0.0.1:$port
    until answers "$port"; do
      kill -0 "$server" 2>/dev/null || continue 2
      ((SECONDS < 200)) || fail "the S3 server does not start: $(tail -3 "$WORK/s3.log")"
      sleep 0.2
    done
    return 0
  done
  fail "the S3 server finds no port in $try tries: $(tail -3 "$WORK/s3.log")"
}

export AWS_ACCESS_KEY_ID=unclip AWS_SECRET_ACCESS_KEY=a-secret-of-the-test AWS_REGION=eu-central-1
fetch_jar
start_server
"$UNCLIP_BIN/integration.storage_s3" || fail "the store in a bucket"

use_cluster
UNCLIP_ARTIFACTS=s3://pictures/unclip cluster restart decoder-0
job "$RUN" "a red heart" '"n": 2'
await_state "$RUN" succeeded
expect "the pictures' URIs" "$(one_result "$RUN" | jq -c '[.images[].uri]')" \
  "[\"s3://pictures/unclip/$RUN/0.png\",\"s3://pictures/unclip/$RUN/1.png\"]"
for i in 0 1; do
  expect "the bytes of picture $i" "$(sha256sum <"$WORK/buckets/pictures/unclip/$RUN/$i.png" | cut -d' ' -f1)" \
    "$(one_result "$RUN" | jq -r ".images[$i].sha256")"
done

# a bucket that is not there: the worker says so and ends
if UNCLIP_START_SECONDS=20 UNCLIP_ARTIFACTS=s3://not-there cluster restart decoder-0 2>"$WORK/refused"; then
  fail "a worker starts with a bucket that is not there"
fi
grep -q 'there is no bucket' "$WORK/refused" "$UNCLIP_HOME/logs/decoder-0.log" || fail "it does not say why: $(cat "$WORK/refused")"
cluster up
