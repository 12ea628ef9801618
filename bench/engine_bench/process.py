"""The two sides as processes that are kept alive and answer a line of JSON to each line they are told."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path


class Side:
    """A process; its first answer says that it is ready."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self.command = command
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.about = self.read()

    def read(self) -> dict[str, object]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"bench/engine: ended with status {self.process.wait()}: {' '.join(self.command)}")
        return json.loads(line)

    def ask(self, line: str) -> dict[str, object]:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.read()

    def go(self) -> float:
        return float(str(self.ask("go")["seconds"]))

    def memory(self) -> dict[str, int]:
        return proc_memory(self.process.pid)

    def close(self) -> None:
        self.process.communicate()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def proc_memory(pid: int) -> dict[str, int]:
    """Resident bytes: now, the most so far, and shared pages by their share."""
    wanted = {"VmRSS": "resident", "VmHWM": "peak", "Pss": "pss"}
    found = {}
    for name in ("status", "smaps_rollup"):
        for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
            key, _, rest = line.partition(":")
            if key in wanted:
                found[wanted[key]] = int(rest.split()[0]) * 1024
    return found


def stolen_seconds() -> float:
    """How long this machine's cores have waited for other machines on its host, of all cores together."""
    return int(Path("/proc/stat").read_text().split()[8]) / 100
