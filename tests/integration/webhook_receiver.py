# SPDX-License-Identifier: Apache-2.0
"""A receiver of webhooks for webhooks.sh: checks each signature, answers as its path says.

usage: webhook_receiver.py FOLDER SECRET

FOLDER/port has its port, once it listens; each request becomes a line of FOLDER/requests, written before
it is answered: path, id, at (seconds), valid (by SECRET, one `whsec_`), signatures (how many), body. Paths:
/ok 200; /flaky 503, then 503 with Retry-After, then 200; /gone 410; /never 500; /moved 302 to /ok; /page 200 with
a long page; /slow waits for the file FOLDER/slow-open, then 200; /shut 503 until FOLDER/shut-open is there, then 200.
What follows a further / in the path tells the requests of one run from those of another.
"""

import base64
import hashlib
import hmac
import json
import pathlib
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FOLDER = pathlib.Path(sys.argv[1])
KEY = base64.b64decode(sys.argv[2].removeprefix("whsec_"), validate=True)
TOLERANCE_S = 300
PAGE = b"x" * (1 << 20)
lock = threading.Lock()
counts = {}


def is_valid(headers, body):
    """As the specification tells a receiver to verify."""
    at = headers["webhook-timestamp"]
    if abs(time.time() - int(at)) > TOLERANCE_S:
        return False
    content = f"{headers['webhook-id']}.{at}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.new(KEY, content, hashlib.sha256).digest()).decode()
    return any(hmac.compare_digest(expected, one) for one in headers["webhook-signature"].split(" "))


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        line = {
            "path": self.path,
            "id": self.headers["webhook-id"],
            "at": time.monotonic(),
            "valid": self.headers["content-type"] == "application/json" and is_valid(self.headers, body),
            "signatures": len(self.headers["webhook-signature"].split(" ")),
            "body": body.decode(),
        }
        with lock:
            counts[self.path] = counts.get(self.path, 0) + 1
            count = counts[self.path]
            with open(FOLDER / "requests", "a") as out:
                out.write(json.dumps(line) + "\n")
        self.answer(self.path.split("/")[1], count)

    def answer(self, kind, count):
        is_open = (FOLDER / f"{kind}-open").exists
        if kind == "slow":
            while not is_open():
                time.sleep(0.05)
        status = {"flaky": 200 if count > 2 else 503, "gone": 410, "never": 500, "moved": 302,
                  "shut": 200 if is_open() else 503}.get(kind, 200)
        page = PAGE if kind == "page" else b""
        self.send_response(status)
        if kind == "flaky" and count == 2:
            self.send_header("retry-after", "2")
        if kind == "moved":
            self.send_header("location", "/ok/moved")
        self.send_header("content-length", str(len(page)))
        self.end_headers()
        try:
            self.wfile.write(page)
        except ConnectionError:
            pass  # the sender does not read on

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
(FOLDER / "port.new").write_text(str(server.server_port))
(FOLDER / "port.new").rename(FOLDER / "port")
server.serve_forever()
