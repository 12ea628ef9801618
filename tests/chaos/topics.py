# SPDX-License-Identifier: Apache-2.0
"""Kafka's topics through kcat: whole committed logs, and single records."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from plan import Send

LOGS = ("unclip.results", "unclip.state", "unclip.events", "unclip.dead-letter")
SEND_S = 300  # a broker that is killed is back long before


@dataclass(frozen=True)
class Record:
    """`value`: parsed; None is a tombstone."""

    partition: int
    offset: int
    key: str | None
    value: dict | None


def parse(line: str, hostile: Collection[str] = ()) -> Record | None:
    """One line of kcat -J; None where its key is one of those that we sent there ourselves, not to be read."""
    row = json.loads(line)
    value, key = row["payload"], row["key"]
    if key in hostile:
        return None
    return Record(row["partition"], row["offset"], key, None if value is None else json.loads(value))


class Kafka:
    """`sends`: of the whole run. `places`: what is to stand in their values for some words."""

    def __init__(self, address: str, home: Path, sends: Iterable[Send], places: Mapping[str, str]) -> None:
        self.address = address
        self.places = places
        self.home = home
        self.hostile = {topic: {send.key for send in sends if send.topic == topic} for topic in LOGS}
        self.folder = home / "records"  # where what was read is kept, to be looked at
        self.folder.mkdir(exist_ok=True)

    def read(self, topic: str) -> list[Record]:
        """The topic's committed records, partition after partition in their order."""
        command = ["kcat", "-C", "-e", "-q", "-J", "-b", self.address, "-t", topic, "-o", "beginning"]
        command += ["-X", "isolation.level=read_committed"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, errors="replace", timeout=SEND_S)
        (self.folder / f"{topic}.jsonl").write_text(done.stdout)
        records = [parse(line, self.hostile[topic]) for line in done.stdout.split("\n") if line]
        return sorted(filter(None, records), key=lambda record: (record.partition, record.offset))

    def logs(self) -> dict[str, list[Record]]:
        self.await_broker()
        return {topic: self.read(topic) for topic in LOGS}

    def cleaned(self) -> list[str]:
        """Partitions that may have lost records to compaction: Kafka never cleans the last file of one."""
        folders = [folder for topic in LOGS for folder in (self.home / "kafka").glob(f"{topic}-*")]
        assert folders, "Kafka has no folder of the results"
        return sorted(folder.name for folder in folders if len(list(folder.glob("*.log"))) != 1)

    def await_broker(self) -> None:
        """kcat gives up at once where no broker answers."""
        deadline = time.monotonic() + SEND_S
        command = ["timeout", "10", "kcat", "-L", "-m", "5", "-b", self.address]
        while subprocess.run(command, capture_output=True).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError(f"no broker has answered at {self.address} for {SEND_S} s")

    def placed(self, value: bytes) -> bytes:
        for word, place in self.places.items():
            value = value.replace(word.encode(), place.encode())
        return value

    def send(self, send: Send) -> None:
        """Returns when Kafka has it. What may be sent twice is tried again; for the rest the broker must stay alive
        meanwhile, and the producer keeps it single."""
        command = ["kcat", "-P", "-b", self.address, "-t", send.topic, "-k", send.key, "-p", str(send.partition)]
        command += ["-X", "message.max.bytes=1048000", "-X", "enable.idempotence=true"]
        command += [b"-H", send.header] if send.header else []
        file = self.folder / "sent"
        file.write_bytes(self.placed(send.value))
        deadline = time.monotonic() + SEND_S
        while True:
            self.await_broker()
            done = subprocess.run([*command, file], capture_output=True, text=True, errors="replace", timeout=SEND_S)
            if done.returncode == 0:
                return
            if send.once or time.monotonic() > deadline:
                raise RuntimeError(f"cannot send {send.key} to {send.topic}: {done.stderr.strip()}")
