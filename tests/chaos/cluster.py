# SPDX-License-Identifier: Apache-2.0
"""The cluster of a chaos run: ops/cluster, its processes, and the supervisor that starts what died."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from plan import PAUSE_S, SLOTS, Blow, Plan

ROOT = Path(__file__).resolve().parents[2]
FAILED_UPS_MAX = 20  # in a row
ALIVE_S = 120  # for a process that is to be struck to be there


class Cluster:
    """`environment`: of all programs."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home = home
        self.environment = os.environ | {"UNCLIP_HOME": str(home)} | environment
        self.log = home / "logs" / "supervisor.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)

    def command(self, *words: str) -> str:
        """Its output. Raises where it fails; the log has what it said."""
        command = [ROOT / "ops" / "cluster", *words]
        with self.log.open("a") as log:
            done = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True)
        if done.returncode:
            raise RuntimeError(f"ops/cluster {' '.join(words)} failed, see {self.log}")
        return done.stdout

    def start(self) -> str:
        """Kafka's address."""
        slots = self.home / "slots"  # as ops/cluster scale leaves them
        slots.mkdir()
        for pool, count in SLOTS.items():
            (slots / pool).write_text(f"{count}\n")
        self.command("up")
        return json.loads(self.command("status", "--json"))["kafka"]

    def stop_programs(self) -> None:
        """Workers first, as they finish what they have; Kafka and Redis stay."""
        names = [row["name"] for row in json.loads(self.command("status", "--json"))["processes"] if row["stage"]]
        workers = [name for name in names if not name.startswith("coordinator-")]
        self.command("stop", *workers)
        self.command("stop", *(set(names) - set(workers)))

    def lags(self) -> dict[str, int]:
        """What is left of the tasks, by stage; "unknown" where the servers do not answer."""
        client = Path(self.environment["UNCLIP_BIN"]) / "unclip"
        status = json.loads(self.command("status", "--json"))
        command = [client, "stages", "--json", "--kafka", status["kafka"], "--redis", status["redis"]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode:  # Redis may just be on its way back
            return {"unknown": 1}
        rows = json.loads(done.stdout)
        return {row["stage"]: sum(row["lag"].values()) for row in rows}

    def pids(self, name: str) -> list[int]:
        """Of a process and its children: the mark that ops/cluster gives them."""
        mark = f"CLUSTER_PROCESS={self.home}/{name}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue
        return sorted(found)

    def leader(self, name: str) -> int | None:
        """The pid of the process that leads, if it is alive."""
        try:
            pid = int((self.home / "run" / f"{name}.pid").read_text())
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if f"CLUSTER_PROCESS={self.home}/{name}".encode() in environment else None

    def names(self) -> list[str]:
        """Of all that are meant to run."""
        return sorted(path.stem for path in (self.home / "run").glob("*.pid"))

    def ranks(self, name: str) -> list[int]:
        """A worker's MPI ranks, without mpirun and what started it."""
        return [pid for pid in self.pids(name) if program(pid) == "unclip-worker"]


def program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return ""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Supervisor(threading.Thread):
    """Brings up whatever has died, until it is told to stop."""

    def __init__(self, cluster: Cluster, plan: Plan) -> None:
        super().__init__(name="supervisor", daemon=True)
        self.cluster = cluster
        self.plan = plan
        self.ending = threading.Event()
        self.calm = threading.Event()  # from then on nothing that is started is to die, poison aside
        self.restarts = self.ups = 0
        self.trouble = ""

    def run(self) -> None:
        failed = 0
        while not self.ending.wait(0.2):
            down = [name for name in self.cluster.names() if self.cluster.leader(name) is None]
            if not down:
                continue
            self.restarts += len(down)
            self.draw_moment()
            try:
                self.cluster.command("up")
                failed = 0
            except RuntimeError as error:  # what was started may have been struck at once
                failed += 1
                if failed == FAILED_UPS_MAX:
                    self.trouble = str(error)
                    return

    def draw_moment(self) -> None:
        moment = [] if self.calm.is_set() else [self.plan.moments[self.ups % len(self.plan.moments)]]
        self.ups += 1
        self.cluster.environment["UNCLIP_FAULT"] = ",".join(self.plan.faults + moment)

    def stop(self) -> None:
        self.ending.set()
        self.join()


class Killer(threading.Thread):
    """Strikes the plan's blows at their times. `broker`: held while Kafka is killed."""

    def __init__(self, cluster: Cluster, blows: list[Blow], broker: threading.Lock) -> None:
        super().__init__(name="killer", daemon=True)
        self.cluster, self.blows, self.broker = cluster, blows, broker
        self.ending = threading.Event()
        self.kills = self.pauses = 0
        self.paused: list[threading.Timer] = []
        self.trouble = ""

    def run(self) -> None:
        began = time.monotonic()
        try:
            for blow in self.blows:
                if self.ending.wait(max(0.0, began + blow.at_s - time.monotonic())):
                    return
                self.strike(blow)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            self.trouble = f"{type(error).__name__}: {error}"

    def strike(self, blow: Blow) -> None:
        if blow.kind == "pause":
            self.pause(self.await_alive(blow))
        elif blow.kind == "kill-broker":
            with self.broker:
                self.kill(self.await_alive(blow))
        else:
            pids = self.await_alive(blow)
            if blow.kind == "empty-redis":
                self.empty_redis()
            self.kill(pids)

    def await_alive(self, blow: Blow) -> list[int]:
        deadline = time.monotonic() + ALIVE_S
        while not self.ending.wait(0.05):
            pids = self.aim(blow)
            if pids:
                return pids
            if time.monotonic() > deadline:
                raise RuntimeError(f"{blow.target} has been down for {ALIVE_S} s")
        return []

    def aim(self, blow: Blow) -> list[int]:
        if blow.kind == "kill-rank":
            ranks = self.cluster.ranks(blow.target)
            return [ranks[blow.pick % len(ranks)]] if ranks else []
        leader = self.cluster.leader(blow.target)
        if leader is None:
            return []
        return self.cluster.pids(blow.target) if blow.kind == "pause" else [leader]

    def kill(self, pids: list[int]) -> None:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:  # it died in this very moment
                continue
            self.kills += 1
            while alive(pid) and not self.ending.wait(0.01):
                pass

    def empty_redis(self) -> None:
        port = json.loads(self.cluster.command("status", "--json"))["redis"].rpartition(":")[2]
        command = ["redis-cli", "-p", port, "flushall"]
        deadline = time.monotonic() + ALIVE_S
        while subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip() != "OK":
            if self.ending.wait(0.1) or time.monotonic() > deadline:
                raise RuntimeError("Redis cannot be emptied")

    def pause(self, pids: list[int]) -> None:
        signal_all(pids, signal.SIGSTOP)
        self.pauses += 1
        timer = threading.Timer(PAUSE_S, signal_all, (pids, signal.SIGCONT))
        timer.start()
        self.paused.append(timer)

    def stop(self) -> None:
        self.ending.set()
        self.join()
        for timer in self.paused:
            timer.join()


def signal_all(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
