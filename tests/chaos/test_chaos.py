# SPDX-License-Identifier: Apache-2.0
"""The judge itself: it accepts the logs of a run in which all went well, and refuses each of these doctored ones."""

from __future__ import annotations

import copy
import hashlib
import re
import sys
import unittest
import zlib
from collections.abc import Callable
from pathlib import Path

sys.dont_write_bytecode = True

from check import Judge, Logs, verdict  # noqa: E402
from pictures import keys_of, pixels  # noqa: E402
from plan import BLOWS, ENDS_WELL, MOMENTS, REFUSALS, Job, Letter, Plan, Request, make_plan  # noqa: E402
from topics import Record, parse  # noqa: E402

LIMIT = 6
GOOD, CANCELLED, POISON, REFUSED = "good", "cancelled", "poison", "refused"
HOPS = [{"stage": stage, "steps": 1, "guidance": 0} for stage in ("text-encode", "prior", "decoder")]


def png(colour: int, text: bytes = b"") -> bytes:
    """One grey pixel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)

    header = (1).to_bytes(4) + (1).to_bytes(4) + bytes([8, 0, 0, 0, 0])
    rows = zlib.compress(bytes([0, colour]))
    parts = [(b"IHDR", header), (b"tEXt", text), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, content) for kind, content in parts)


class World:
    """Four jobs that ended as they should, one of them cancelled after its first picture."""

    def __init__(self) -> None:
        died, refused = frozenset({"worker_died"}), REFUSALS
        request = Request("a red heart", 5, 64, 2)
        self.plan = Plan(seconds=60)
        self.plan.jobs = {
            GOOD: Job(GOOD, request, ENDS_WELL),
            CANCELLED: Job(CANCELLED, request, ENDS_WELL | {"cancelled": frozenset({"cancelled"})}),
            POISON: Job(POISON, Request("poison", 1, 64, 1), {"failed": died}),
            REFUSED: Job(REFUSED, None, {"failed": refused}),
        }
        self.plan.letters = [Letter("poison/0", died), Letter(REFUSED, refused), Letter("task/0", refused)]
        self.plan.letters.append(Letter(GOOD, frozenset({"conflict"})))
        self.plan.strangers = {"stranger"}
        self.wanted = {key: pixels(png(key[1])) for key in keys_of(request)}
        self.files = {f"file:///{job}/{i}.png": png(5 + i, job.encode()) for job in (GOOD, CANCELLED) for i in (0, 1)}
        self.logs: Logs = {topic: [] for topic in ("unclip.results", "unclip.state", "unclip.events", "unclip.dead-letter")}
        self.fill()

    def add(self, topic: str, key: str | None, value: dict | None) -> None:
        self.logs[topic].append(Record(0, len(self.logs[topic]), key, value))

    def stored(self, job: str, i: int) -> dict:
        uri = f"file:///{job}/{i}.png"
        return {"uri": uri, "sha256": hashlib.sha256(self.files[uri]).hexdigest(), "width": 64, "height": 64}

    def result(self, job: str, state: str, images: list[dict], code: str = "", message: str = "") -> None:
        for live in ("accepted", "queued", "running") if job != REFUSED else ():
            self.add("unclip.state", job, {"state": live})
        self.add("unclip.state", job, None)
        row = {"id": job, "state": state, "route": HOPS, "images": images, "error_code": code, "error_message": message}
        self.add("unclip.results", job, row)

    def event(self, job: str, kind: str, i: int, stage: str, **more: object) -> None:
        self.add("unclip.events", job, {"type": kind, "job": job, "image": i, "stage": stage, **more})

    def letter(self, key: str, code: str) -> None:
        self.add("unclip.dead-letter", key, {"key": key, "error_code": code})

    def picture(self, job: str, i: int) -> dict:
        """Makes it, and says so; gives its part of the result."""
        for stage in ("text-encode", "prior"):
            self.event(job, "stage-finished", i, stage)
        self.event(job, "picture-finished", i, "decoder", **self.stored(job, i))
        return {"index": i, "seed": 5 + i, "state": "stored", **self.stored(job, i)}

    def fill(self) -> None:
        self.result(GOOD, "succeeded", [self.picture(GOOD, 0), self.picture(GOOD, 1)])
        dropped = {"index": 1, "seed": 6, "state": "dropped"}
        self.result(CANCELLED, "cancelled", [self.picture(CANCELLED, 0), dropped], "cancelled")
        failed = {"index": 0, "seed": 1, "state": "failed"}
        self.result(POISON, "failed", [failed], "worker_died", f"worker died {LIMIT} times")
        self.result(REFUSED, "failed", [], "invalid_json", "no JSON")
        self.event("stranger", "picture-failed", 0, "prior")
        for key, code in (("poison/0", "worker_died"), (REFUSED, "invalid_json"), ("task/0", "invalid_record")):
            self.letter(key, code)
        self.letter(GOOD, "conflict")

    def read(self, uri: str) -> bytes:
        if uri not in self.files:
            raise FileNotFoundError(uri)
        return self.files[uri]

    def judge(self) -> list[str]:
        judge = Judge(self.plan, self.wanted, LIMIT, self.read)
        return sorted({f"{finding.kind} {finding.subject}" for finding in judge.judge(self.logs)})

    def find(self, topic: str, job: str, **fields: object) -> Record:
        for record in self.logs[topic]:
            value = record.value or {}
            if record.key == job and all(value.get(name) == wanted for name, wanted in fields.items()):
                return record
        raise LookupError(f"no such record of {job} in {topic}")

    def drop(self, topic: str, job: str, **fields: object) -> None:
        self.logs[topic].remove(self.find(topic, job, **fields))

    def double(self, topic: str, job: str, **fields: object) -> None:
        self.logs[topic].append(copy.deepcopy(self.find(topic, job, **fields)))

    def change(self, topic: str, job: str, new: dict, **fields: object) -> None:
        self.find(topic, job, **fields).value.update(new)


ANNOUNCED = {"type": "picture-finished", "image": 1}
RESULTS, STATE, EVENTS, LETTERS = "unclip.results", "unclip.state", "unclip.events", "unclip.dead-letter"


def recolour(world: World) -> None:
    """Another picture, stored and announced as if it were right."""
    world.files[f"file:///{GOOD}/1.png"] = png(99)
    world.change(EVENTS, GOOD, world.stored(GOOD, 1), **ANNOUNCED)
    world.find(RESULTS, GOOD).value["images"][1].update(world.stored(GOOD, 1))


# what is done to the logs → what the judge must say
DOCTORED: dict[str, tuple[Callable[[World], object], str]] = {
    "a lost job": (lambda w: w.drop(RESULTS, GOOD), "lost good"),
    "a doubled job": (lambda w: w.double(RESULTS, GOOD), "doubled good"),
    "a job of nobody": (lambda w: w.result("nobody", "succeeded", []), "different nobody"),
    "a job that failed": (lambda w: w.change(RESULTS, GOOD, {"state": "failed", "error_code": "internal"}), "different good"),
    "a cancelled job": (lambda w: w.change(RESULTS, GOOD, {"state": "cancelled"}), "different good"),
    "a cancelled job with another code": (lambda w: w.change(RESULTS, CANCELLED, {"error_code": "io"}), "different cancelled"),
    "a poison that succeeded": (lambda w: w.change(RESULTS, POISON, {"state": "succeeded"}), "different poison"),
    "too few deaths": (lambda w: w.change(RESULTS, POISON, {"error_message": "worker died 3 times"}), "different poison"),
    "a picture missing in the result": (lambda w: w.find(RESULTS, GOOD).value["images"].pop(), "different good"),
    "a picture failed": (lambda w: w.find(RESULTS, GOOD).value["images"][0].update(state="failed"), "different good"),
    "another seed": (lambda w: w.find(RESULTS, GOOD).value["images"][0].update(seed=7), "different good"),
    "a lost announcement": (lambda w: w.drop(EVENTS, GOOD, **ANNOUNCED), "lost good"),
    "a doubled announcement": (lambda w: w.double(EVENTS, GOOD, **ANNOUNCED), "doubled good"),
    "a doubled one of a cancelled job": (lambda w: w.double(EVENTS, CANCELLED, type="picture-finished"), "doubled cancelled"),
    "an announcement too many": (lambda w: w.change(EVENTS, GOOD, {"image": 2}, **ANNOUNCED), "different good"),
    "an announcement of another file": (lambda w: w.change(EVENTS, GOOD, {"uri": "file:///x"}, **ANNOUNCED), "different good"),
    "a lost report": (lambda w: w.drop(EVENTS, GOOD, stage="prior"), "lost good"),
    "a doubled report": (lambda w: w.double(EVENTS, GOOD, stage="prior"), "doubled good"),
    "a report of nobody": (lambda w: w.event("nobody", "stage-finished", 0, "prior"), "different nobody"),
    "a lost file": (lambda w: w.files.pop(f"file:///{GOOD}/0.png"), "lost good"),
    "a cut file": (lambda w: w.files.update({f"file:///{GOOD}/0.png": png(5)[:-20]}), "different good"),
    "a file with other text": (lambda w: w.files.update({f"file:///{GOOD}/0.png": png(5, b"x")}), "different good"),
    "another picture": (recolour, "different good"),
    "a picture that nobody knows": (lambda w: w.wanted.clear(), "different good"),
    "a state that does not end": (lambda w: w.logs[STATE].remove(w.logs[STATE][3]), "lost good"),
    "a state that ends twice": (lambda w: w.add(STATE, GOOD, None), "doubled good"),
    "a state after the end": (lambda w: w.add(STATE, GOOD, {"state": "running"}), "different good"),
    "a state that falls back": (lambda w: w.logs[STATE].insert(3, Record(0, 0, GOOD, {"state": "queued"})), "different good"),
    "poison without its letter": (lambda w: w.drop(LETTERS, "poison/0"), "lost poison/0"),
    "poison with two letters": (lambda w: w.double(LETTERS, "poison/0"), "doubled poison/0"),
    "a hostile task without its letter": (lambda w: w.drop(LETTERS, "task/0"), "lost task/0"),
    "a letter with another reason": (lambda w: w.change(LETTERS, REFUSED, {"error_code": "internal"}), "different refused"),
    "a letter of an innocent": (lambda w: w.letter("cancelled/0", "worker_died"), "different cancelled/0"),
    "a second letter of a job": (lambda w: w.letter(GOOD, "worker_died"), "different good"),
    "a letter without a key": (lambda w: w.letter(None, "invalid_json"), "different None"),
}


class JudgeTest(unittest.TestCase):
    def test_accepts_what_went_well(self) -> None:
        self.assertEqual(World().judge(), [])

    def test_refuses_each_doctored_log(self) -> None:
        for name, (doctor, wanted) in DOCTORED.items():
            with self.subTest(name):
                world = World()
                doctor(world)
                self.assertIn(wanted, world.judge())

    def test_accepts_a_cancelled_job_that_was_done(self) -> None:
        world = World()
        world.picture(CANCELLED, 1)
        world.change(RESULTS, CANCELLED, {"state": "succeeded", "error_code": ""})
        world.find(RESULTS, CANCELLED).value["images"][1] = world.find(RESULTS, GOOD).value["images"][1] | world.stored(CANCELLED, 1)
        self.assertEqual(world.judge(), [])

    def test_accepts_another_try(self) -> None:
        world = World()
        world.event(GOOD, "stage-finished", 0, "prior", attempt=1)
        self.assertEqual(world.judge(), [])

    def test_counts(self) -> None:
        world = World()
        world.drop(LETTERS, "task/0")
        world.double(RESULTS, GOOD)
        findings = Judge(world.plan, world.wanted, LIMIT, world.read).judge(world.logs)
        self.assertEqual(verdict(findings, 4, 9), "lost 1 doubled 1 different 0 jobs 4 kills 9")
        self.assertEqual(verdict([], 4, 9), "lost 0 doubled 0 different 0 jobs 4 kills 9")

    def test_reads_a_record_and_a_tombstone(self) -> None:
        line = '{"topic":"t","partition":3,"offset":7,"tstype":"create","ts":1,"broker":1,"key":"a","payload":%s}'
        self.assertEqual(parse(line % '"{\\"x\\": 1}"'), Record(3, 7, "a", {"x": 1}))
        self.assertEqual(parse(line % "null"), Record(3, 7, "a", None))
        self.assertIsNone(parse(line % '"[[["', {"a"}))
        self.assertRaises(ValueError, parse, line % '"[[["')


class PlanTest(unittest.TestCase):
    def test_the_seed_decides_all(self) -> None:
        one, same, other = (list(make_plan(seed, 3, 60).lines()) for seed in (7, 7, 8))
        self.assertEqual(one, same)
        self.assertNotEqual(one, other)

    def test_every_blow_falls_and_all_poison_is_there(self) -> None:
        for seed in range(20):
            plan = make_plan(seed, 2, 60)
            self.assertEqual({blow.kind for blow in plan.blows}, set(BLOWS))
            self.assertEqual(len(plan.faults), 3)
            for program, points in MOMENTS.items():
                self.assertEqual({point for point in points if f"{program}.{point}:" in str(plan.moments)}, set(points))
            self.assertEqual({send.topic.split(".")[1] for send in plan.sends}, {"jobs", "tasks", "events"})

    def test_a_worker_can_take_all_faults(self) -> None:
        table = (Path(__file__).resolve().parents[2] / "common" / "fault.c").read_text()
        most = int(re.search(r"#define FAULTS_MAX +(\d+)", table)[1])
        self.assertLess(len(make_plan(1, 60, 60).faults), most)

    def test_a_fate_follows_its_job(self) -> None:
        sent = set()
        for send in make_plan(1, 10, 60).sends:
            if b'"cancel"' in send.value:
                self.assertIn(send.key, sent)
            sent.add(send.key)

    def test_no_request_is_outside_of_the_undisturbed_pictures(self) -> None:
        from plan import SIZES

        for job in make_plan(1, 10, 60).jobs.values():
            if job.request and "succeeded" in job.ends:
                prompts, seeds, _, _ = SIZES[job.request.size]
                self.assertIn(job.request.prompt, prompts)
                self.assertLessEqual(job.request.seed + job.request.n, seeds)


if __name__ == "__main__":
    unittest.main()
