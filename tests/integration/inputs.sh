#!/usr/bin/env bash
# Pictures that may not come in, and what each of them gets; and one from a server that is allowed.
source "$(dirname "$0")/lib.sh"
use_cluster

picture() { python3 "$ROOT/tests/integration/picture.py" "$@"; }
data_url() { printf 'data:image/png;base64,%s' "$(base64 -w0 "$1")"; }
# submit NAME JSON: an edit or embed of what is to be tried
submit() { jq -nc "{version: 1, id: \"$RUN-$1\"} + $2" | produce "$RUN-$1"; }
embed() { submit "$1" "{type: \"embed\", inputs: [{image: \"$2\"}]}"; }
edit() { submit "$1" "{type: \"edit\", prompt: \"a leaf\", size: 64, seed: 1, resample: 0, steps: {prior: 2, decoder: 2}} + $2"; }
# refused NAME CODE WORDS
refused() {
  await_state "$RUN-$1" failed
  expect "error code of $1 ($(field "$RUN-$1" error_message))" "$(field "$RUN-$1" error_code)" "$2"
  [[ $(field "$RUN-$1" error_message) == *"$3"* ]] || fail "$1: '$(field "$RUN-$1" error_message)' does not say '$3'"
}

mkdir "$WORK/www"
picture make plain 64 "$WORK/www/plain.png"
picture make plain 48 "$WORK/small.png"
head -c 400 "$WORK/www/plain.png" >"$WORK/cut.png"
picture bomb "$WORK/bomb.png"
printf '<html>not a picture</html>' >"$WORK/page.png"
python3 - "$WORK/www" "$WORK/port" 2>/dev/null <<'PYTHON' &
import functools, http.server, os, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
with open(sys.argv[2] + ".new", "w") as out:
    out.write(str(server.server_port))
os.rename(sys.argv[2] + ".new", sys.argv[2])
server.serve_forever()
PYTHON
server=$!
trap 'kill "$server"; finish' EXIT
within 30 test -s "$WORK/port" || fail "the picture server does not start"
url=http://127.0.0.1:$(<"$WORK/port")/plain.png

# what a coordinator sees
embed half-a-url "data:image/png;base64,AAA"
embed a-page "data:text/html;base64,AAAA"
# what a worker sees
embed no-picture "$(data_url "$WORK/page.png")"
embed truncated "$(data_url "$WORK/cut.png")"
embed bomb "$(data_url "$WORK/bomb.png")"
embed this-host "$url"
embed private "http://10.0.0.1/a.png"
embed metadata "http://169.254.169.254/latest/meta-data"
embed odd-port "http://example.org:22/a.png"
embed a-file "file:///etc/passwd"
embed a-scheme "gopher://example.org/a.png"
embed unknown "file://$(realpath "${UNCLIP_ARTIFACTS:-$UNCLIP_HOME/artifacts}")/no-such-job/0.png"
edit no-hole "{image: \"$(data_url "$WORK/www/plain.png")\"}"
edit black "{image: \"$(data_url "$WORK/www/plain.png")\", mask: \"$(data_url "$WORK/www/plain.png")\"}"
edit no-mask "{image: \"$(data_url "$WORK/www/plain.png")\", mask_mode: \"white\"}"

refused half-a-url invalid_job "'/inputs/0/image': the data URL is not base 64"
refused a-page invalid_job "'text/html'"
refused no-picture invalid_image "the picture is no PNG"
refused truncated invalid_image "input 0"
refused bomb invalid_image "30000x30000"
refused this-host url_refused "127.0.0.1"
refused private url_refused "10.0.0.1"
refused metadata url_refused "169.254.169.254"
refused odd-port url_refused "port is 22"
refused a-file url_refused "not in the artifact store"
refused a-scheme url_refused "gopher"
refused unknown not_found "no-such-job"
refused no-hole invalid_job "no pixel of the picture is transparent"
refused black invalid_job "the mask selects nothing"
refused no-mask invalid_job "needs a mask"
expect "the dead letter's reason" "$(one_letter "$RUN-this-host" | jq -r .error_code)" url_refused

# the operator may name a server
UNCLIP_FETCH=127.0.0.1:$(<"$WORK/port") cluster restart image-encode-0
embed named "$url"
embed away "http://127.0.0.1:$(<"$WORK/port")/away.png"
embed others "https://example.org/a.png"
await_state "$RUN-named" succeeded
refused away not_found "no such thing"
refused others url_refused "not one of the servers"
cluster restart image-encode-0
