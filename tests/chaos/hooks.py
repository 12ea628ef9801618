# SPDX-License-Identifier: Apache-2.0
"""The receiver of the run's webhooks: it keeps what comes, and turns the first try of each away."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
from collections import defaultdict
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATH = "/chaos/"  # and the job's id


def new_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def is_signed(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """As the specification of Standard Webhooks tells a receiver to verify."""
    key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = f"v1,{base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()}"
    return any(hmac.compare_digest(wanted, one) for one in headers["webhook-signature"].split(" "))


class Receiver:
    """`taken`: by the job in the path, the bodies that were answered 200; None for one without a right signature."""

    def __init__(self) -> None:
        self.secret = new_secret()
        self.lock = threading.Lock()  # guards all below
        self.taken: dict[str, list[bytes | None]] = defaultdict(list)
        self.known: set[str] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                self.send_response(receiver.take(self.path, self.headers, body))
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, name="receiver", daemon=True)
        self.thread.start()

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> int:
        """The answer's status."""
        job = path.removeprefix(PATH)
        with self.lock:
            if job not in self.known:
                self.known.add(job)
                return 503
            self.taken[job].append(body if is_signed(self.secret, headers, body) else None)
            return 200

    def bodies(self) -> dict[str, list[bytes | None]]:
        with self.lock:
            return {job: list(bodies) for job, bodies in self.taken.items()}

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
