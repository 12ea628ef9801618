# SPDX-License-Identifier: Apache-2.0
"""The judge itself: it accepts the logs of a run in which all went well, and refuses each of these doctored ones."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import sys
import unittest
from collections.abc import Callable
from pathlib import Path

sys.dont_write_bytecode = True

from check import Judge, Logs, verdict  # noqa: E402
from hooks import PATH, Receiver, is_signed  # noqa: E402
from pictures import digest, encode  # noqa: E402
from plan import BLOWS, ENDS_WELL, MOMENTS, POISONS, REFUSALS, Job, Letter, Plan, Request, make_plan  # noqa: E402
from recipes import DATA_URLS, OWN, RECIPES, command_words, drawn  # noqa: E402
from topics import Record, parse  # noqa: E402
from undisturbed import Product  # noqa: E402

LIMIT = 6
GOOD, CANCELLED, POISON, REFUSED, JUDGED = "good", "cancelled", "poison", "refused", "judged"
MAKING = ("text-encode", "prior", "decoder")
JUDGING = ("text-encode", "image-encode", "decoder", "image-encode")
SCORE = 81.25


def png(colour: int, words: bytes = b"") -> bytes:
    """One grey pixel."""
    return encode([[(colour, colour, colour, 255)]], words)


class World:
    """Five jobs that ended as they should: one was cancelled after its first picture, one has scores."""

    def __init__(self) -> None:
        died, refused = frozenset({"worker_died"}), REFUSALS
        request, judged = Request("text-heart", 3, 2), Request("variation-score", 1, 2)
        self.plan = Plan(seconds=60)
        self.plan.jobs = {
            GOOD: Job(GOOD, request, ENDS_WELL),
            CANCELLED: Job(CANCELLED, request, ENDS_WELL | {"cancelled": frozenset({"cancelled"})}, True),
            POISON: Job(POISON, Request("poison", 1), {"failed": died}),
            JUDGED: Job(JUDGED, judged, ENDS_WELL, True),
            REFUSED: Job(REFUSED, None, {"failed": refused}),
        }
        self.plan.letters = [Letter("poison/0", died), Letter(REFUSED, refused), Letter("task/0", refused)]
        self.plan.letters.append(Letter(GOOD, frozenset({"conflict"})))
        self.plan.strangers = {"stranger"}
        self.wanted = {key: Product(digest(png(key[1]))) for key in request.keys()}
        self.wanted |= {key: Product(digest(png(key[1])), SCORE + key[1]) for key in judged.keys()}
        self.files = {
            f"file:///{job}/{i}.png": png(self.plan.jobs[job].request.seed + i, job.encode())
            for job in (GOOD, CANCELLED, JUDGED)
            for i in (0, 1)
        }
        self.logs: Logs = {topic: [] for topic in ("unclip.results", "unclip.state", "unclip.events", "unclip.dead-letter")}
        self.fill()
        self.hooks = {job: [self.body(job)] for job in (CANCELLED, JUDGED)}

    def add(self, topic: str, key: str | None, value: dict | None) -> None:
        self.logs[topic].append(Record(0, len(self.logs[topic]), key, value))

    def stored(self, job: str, i: int) -> dict:
        uri = f"file:///{job}/{i}.png"
        return {"uri": uri, "sha256": hashlib.sha256(self.files[uri]).hexdigest(), "width": 64, "height": 64}

    def result(self, job: str, state: str, images: list[dict], code: str = "", message: str = "", **more: object) -> None:
        for live in ("accepted", "queued", "running") if job != REFUSED else ():
            self.add("unclip.state", job, {"state": live})
        self.add("unclip.state", job, None)
        route = [{"stage": stage} for stage in (JUDGING if job == JUDGED else MAKING)]
        row = {"id": job, "state": state, "route": route, "images": images, "error_code": code, "error_message": message}
        self.add("unclip.results", job, row | more)

    def event(self, job: str, kind: str, i: int, stage: str, **more: object) -> None:
        self.add("unclip.events", job, {"type": kind, "job": job, "image": i, "stage": stage, **more})

    def letter(self, key: str, code: str) -> None:
        self.add("unclip.dead-letter", key, {"key": key, "error_code": code})

    def picture(self, job: str, i: int) -> dict:
        """Makes it, and says so; gives its part of the result."""
        *passed, last = JUDGING if job == JUDGED else MAKING
        seed = self.plan.jobs[job].request.seed + i
        done = self.stored(job, i) | ({"score": SCORE + seed} if job == JUDGED else {})
        for hop, stage in enumerate(passed):
            self.event(job, "stage-finished", i, stage, hop=hop)
        self.event(job, "picture-finished", i, last, hop=len(passed), **done)
        return {"index": i, "seed": seed, "state": "stored", **done}

    def fill(self) -> None:
        self.result(GOOD, "succeeded", [self.picture(GOOD, 0), self.picture(GOOD, 1)])
        self.result(JUDGED, "succeeded", [self.picture(JUDGED, 0), self.picture(JUDGED, 1)], best=[1, 0])
        dropped = {"index": 1, "seed": 4, "state": "dropped"}
        self.result(CANCELLED, "cancelled", [self.picture(CANCELLED, 0), dropped], "cancelled")
        failed = {"index": 0, "seed": 1, "state": "failed"}
        self.result(POISON, "failed", [failed], "worker_died", f"worker died {LIMIT} times")
        self.result(REFUSED, "failed", [], "invalid_json", "no JSON")
        self.event("stranger", "picture-failed", 0, "prior")
        for key, code in (("poison/0", "worker_died"), (REFUSED, "invalid_json"), ("task/0", "invalid_record")):
            self.letter(key, code)
        self.letter(GOOD, "conflict")

    def body(self, job: str) -> bytes:
        """Of its webhook."""
        return json.dumps(self.find("unclip.results", job).value).encode()

    def read(self, uri: str) -> bytes:
        if uri not in self.files:
            raise FileNotFoundError(uri)
        return self.files[uri]

    def judge(self) -> list[str]:
        judge = Judge(self.plan, self.wanted, LIMIT, self.read)
        return sorted({f"{finding.kind} {finding.subject}" for finding in judge.judge(self.logs, self.hooks)})

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


def rejudge(world: World, score: float | None) -> None:
    """Another score of its second picture, announced as if it were right."""
    for found in (world.find(EVENTS, JUDGED, **ANNOUNCED).value, world.find(RESULTS, JUDGED).value["images"][1]):
        found.pop("score")
        found.update({} if score is None else {"score": score})


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
    "a report lost of two from one stage": (lambda w: w.drop(EVENTS, JUDGED, stage="image-encode", hop=1), "lost judged"),
    "a report of nobody": (lambda w: w.event("nobody", "stage-finished", 0, "prior", hop=1), "different nobody"),
    "a lost file": (lambda w: w.files.pop(f"file:///{GOOD}/0.png"), "lost good"),
    "a cut file": (lambda w: w.files.update({f"file:///{GOOD}/0.png": png(5)[:-20]}), "different good"),
    "a file with other text": (lambda w: w.files.update({f"file:///{GOOD}/0.png": png(5, b"x")}), "different good"),
    "another picture": (recolour, "different good"),
    "a picture that nobody knows": (lambda w: w.wanted.clear(), "different good"),
    "another score": (lambda w: rejudge(w, 82.2501), "different judged"),
    "no score": (lambda w: rejudge(w, None), "different judged"),
    "a score too many": (lambda w: w.change(EVENTS, GOOD, {"score": SCORE}, **ANNOUNCED), "different good"),
    "a score not announced": (lambda w: w.change(EVENTS, JUDGED, {"score": SCORE}, **ANNOUNCED), "different judged"),
    "another order of the best": (lambda w: w.change(RESULTS, JUDGED, {"best": [0, 1]}), "different judged"),
    "none of the best": (lambda w: w.find(RESULTS, JUDGED).value.pop("best"), "different judged"),
    "a lost webhook": (lambda w: w.hooks.pop(JUDGED), "lost judged"),
    "a webhook of another record": (lambda w: w.hooks[JUDGED].append(w.body(CANCELLED)), "different judged"),
    "a webhook without a signature": (lambda w: w.hooks[JUDGED].append(None), "different judged"),
    "a webhook that nobody asked for": (lambda w: w.hooks.update({GOOD: [w.body(GOOD)]}), "different good"),
    "a webhook of a job without an end": (lambda w: w.drop(RESULTS, JUDGED), "different judged"),
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
        world.hooks[CANCELLED] = [world.body(CANCELLED)]
        self.assertEqual(world.judge(), [])

    def test_accepts_a_webhook_that_comes_again(self) -> None:
        world = World()
        world.hooks[JUDGED] *= 2
        self.assertEqual(world.judge(), [])

    def test_accepts_another_try(self) -> None:
        world = World()
        world.event(GOOD, "stage-finished", 0, "prior", hop=1, attempt=1)
        self.assertEqual(world.judge(), [])

    def test_counts(self) -> None:
        world = World()
        world.drop(LETTERS, "task/0")
        world.double(RESULTS, GOOD)
        findings = Judge(world.plan, world.wanted, LIMIT, world.read).judge(world.logs, world.hooks)
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
            self.assertEqual(len(plan.faults), len(POISONS))
            self.assertEqual({job.request.recipe for job in plan.jobs.values() if job.request}, {*RECIPES, "poison", "spoilt"})
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

    def test_no_request_is_outside_of_the_undisturbed_results(self) -> None:
        for job in make_plan(1, 10, 60).jobs.values():
            if job.request and "succeeded" in job.ends:
                self.assertLessEqual(job.request.seed + job.request.count, RECIPES[job.request.recipe].seeds)

    def test_a_conflicting_job_has_another_picture(self) -> None:
        plan = make_plan(1, 30, 60)
        plain, other = (DATA_URLS[name].encode() for name in ("plain", "other"))
        conflicts = [send.key for send in plan.sends if b'"metadata"' in send.value]
        bodies = [send.value for send in plan.sends if send.key in conflicts and b"cancel" not in send.value]
        self.assertEqual({plain in text for text in bodies if b'"upscale"' in text}, {True, False})
        self.assertEqual({other in text for text in bodies if b'"upscale"' in text}, {True, False})
        self.assertFalse([send for send in plan.sends if plain in send.value and b'"metadata"' in send.value])


class ReceiverTest(unittest.TestCase):
    """Against a vector of svix's libraries for the specification."""

    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    headers = {"webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp": "1614265330"}
    signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

    def test_knows_a_right_signature(self) -> None:
        headers = self.headers | {"webhook-signature": f"v1,eA== {self.signature}"}
        self.assertTrue(is_signed(self.secret, headers, self.body))
        self.assertFalse(is_signed(self.secret, headers, self.body + b" "))
        self.assertFalse(is_signed(self.secret, headers | {"webhook-timestamp": "1614265331"}, self.body))

    def test_turns_the_first_try_away(self) -> None:
        receiver = Receiver()
        self.addCleanup(receiver.stop)
        receiver.secret = self.secret
        headers = self.headers | {"webhook-signature": self.signature}
        self.assertEqual([receiver.take(f"{PATH}a", headers, self.body) for _ in range(2)], [503, 200])
        self.assertEqual([receiver.take(f"{PATH}b", headers, b"{}") for _ in range(2)], [503, 200])
        self.assertEqual(receiver.bodies(), {"a": [self.body], "b": [None]})


FILES = {name: f"/in/{name}.png" for name in (*drawn(), *OWN)}


class RecipeTest(unittest.TestCase):
    def words(self, name: str) -> str:
        return " ".join(command_words(RECIPES[name], FILES))

    def test_each_is_a_command(self) -> None:
        steps = "--steps-prior 2 --steps-decoder 4"
        self.assertEqual(self.words("text-heart"), f"generate a red heart --size 64 {steps} --n 6 --seed 0")
        self.assertEqual(self.words("best-of"), f"generate a red heart --size 64 {steps} --n 5 --score --seed 0")
        mixture = f"interpolate --local /in/plain.png text:a cat --size 64 {steps} --n 3 --seed 0 --weight 1,2"
        self.assertEqual(self.words("mixture"), mixture)
        self.assertEqual(self.words("embed-npy"), "embed --local /in/hole.png --format npy")
        self.assertEqual(self.words("score"), "score --local /in/plain.png /in/heart.png --prompt a red heart")

    def test_own_pictures_are_made_by_one_before_those_that_take_them(self) -> None:
        names = list(RECIPES)
        for picture, (recipe, seed) in OWN.items():
            self.assertLess(seed, RECIPES[recipe].seeds)
            for name in names[: names.index(recipe) + 1]:
                self.assertNotIn(f"@{picture}", str(RECIPES[name].fields))


class FileTest(unittest.TestCase):
    numbers = bytes(range(8))

    def safetensors(self, numbers: bytes, note: str = "") -> bytes:
        tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
        header = json.dumps({"__metadata__": {"note": note}, "embedding": tensor}).encode()
        return len(header).to_bytes(8, "little") + header + numbers

    def npy(self, numbers: bytes) -> bytes:
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n"
        return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + numbers

    def test_numbers_count_and_not_their_form(self) -> None:
        self.assertEqual(digest(self.safetensors(self.numbers)), digest(self.safetensors(self.numbers, "x")))
        self.assertEqual(digest(self.safetensors(self.numbers)), digest(self.npy(self.numbers)))
        self.assertNotEqual(digest(self.npy(self.numbers)), digest(self.npy(self.numbers[::-1])))

    def test_pixels_count_and_not_the_text(self) -> None:
        self.assertEqual(digest(png(5)), digest(png(5, b"x")))
        self.assertNotEqual(digest(png(5)), digest(png(6)))

    def test_refuses_what_is_cut(self) -> None:
        for whole in (self.safetensors(self.numbers), self.npy(self.numbers), png(5)):
            for cut in (whole[:-1], whole[: len(whole) // 2], whole[:10], b""):
                self.assertRaises(ValueError, digest, cut)


if __name__ == "__main__":
    unittest.main()
