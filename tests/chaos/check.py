# SPDX-License-Identifier: Apache-2.0
"""The judge: reads Kafka's committed logs, and says what is lost, what is doubled, and what is not as it must be.

It knows nothing of Redis, of the programs or of what they said: only the plan, the four logs, the files that the
announcements name, and what came to the receiver of webhooks. A finding is of one of three kinds:

    lost       a job without its final record or its webhook, a picture without its announcement or file, poison without
               its letter
    doubled    any of these twice, webhooks aside
    different  all else: other pixels or numbers, another end, a letter or a job that nobody sent
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pictures import digest
from plan import Job, Key, Plan
from topics import Record
from undisturbed import Product

RANKS = {"accepted": 0, "queued": 1, "running": 2}
SCORE_DIGITS = 1e-8  # an event has nine


@dataclass(frozen=True)
class Finding:
    kind: str  # lost, doubled, different
    subject: str  # a job, or a record's key
    text: str


Findings = Iterator[Finding]
Logs = dict[str, list[Record]]
Hooks = Mapping[str, Sequence[bytes | None]]  # as Receiver.bodies() has them


def read_file(uri: str) -> bytes:
    return Path(uri.removeprefix("file://")).read_bytes()


def exactly_one(subject: str, what: str, count: int) -> Findings:
    if count == 0:
        yield Finding("lost", subject, f"no {what}")
    if count > 1:
        yield Finding("doubled", subject, f"{count} times {what}")


class Judge:
    """`wanted`: what comes of it undisturbed. `read`: the bytes of a file by its URI, or OSError."""

    def __init__(
        self, plan: Plan, wanted: dict[Key, Product], death_limit: int, read: Callable[[str], bytes] = read_file
    ) -> None:
        self.plan, self.wanted, self.death_limit, self.read = plan, wanted, death_limit, read

    def judge(self, logs: Logs, hooks: Hooks) -> list[Finding]:
        by_job = {topic: defaultdict(list) for topic in logs}
        for topic in ("unclip.results", "unclip.state"):
            for record in logs[topic]:
                by_job[topic][record.key].append(record)
        for record in logs["unclip.events"]:
            by_job["unclip.events"][record.value["job"]].append(record)
        findings = [*self.foreign(by_job), *self.letters(logs["unclip.dead-letter"])]
        for job in self.plan.jobs.values():
            results = by_job["unclip.results"][job.id]
            events = [record.value for record in by_job["unclip.events"][job.id]]
            findings += exactly_one(job.id, "final record", len(results))
            findings += self.webhooks(job, hooks.get(job.id, ()), results)
            findings += self.lives(job, by_job["unclip.state"][job.id])
            if job.request:
                findings += self.announcements(job, events, [record.value for record in results])
            for record in results[:1]:
                findings += self.ends(job, record.value)
        return findings

    def foreign(self, by_job: dict[str, dict[str, list[Record]]]) -> Findings:
        """Records of jobs that nobody submitted. A worker does report the tasks that name one and that it cannot read."""
        for topic, records in by_job.items():
            for name in records.keys() - self.plan.jobs.keys():
                if topic != "unclip.events" or name not in self.plan.strangers:
                    yield Finding("different", str(name), f"in {topic}, but nobody submitted it")

    def letters(self, records: list[Record]) -> Findings:
        found = Counter((record.value["key"], record.value["error_code"]) for record in records)
        for letter in self.plan.letters:
            mine = [row for row in found if row[0] == letter.key and row[1] in letter.codes]
            yield from exactly_one(letter.key, "dead letter", sum(found.pop(row) for row in mine))
        for (key, code), count in found.items():
            yield Finding("different", str(key), f"{count} dead letters that nothing poisonous was sent for: {code}")

    def lives(self, job: Job, records: list[Record]) -> Findings:
        """A job's state only rises, and one tombstone ends it, which comes with its final record."""
        tombs = [record for record in records if record.value is None]
        yield from exactly_one(job.id, "end of its state", len(tombs))
        if tombs and records[-1].value is not None:
            yield Finding("different", job.id, "its state goes on after its end")
        ranks = [RANKS[record.value["state"]] for record in records if record.value]
        if ranks != sorted(ranks):
            yield Finding("different", job.id, f"its state falls back: {ranks}")

    def webhooks(self, job: Job, bodies: Sequence[bytes | None], results: list[Record]) -> Findings:
        """At least one, and each with the final record."""
        if job.hooked and not bodies:
            yield Finding("lost", job.id, "no webhook")
        for body in bodies:
            if body is None:
                yield Finding("different", job.id, "a webhook without a right signature")
            elif not job.hooked or not results or json.loads(body) != results[0].value:
                yield Finding("different", job.id, f"a webhook that is not its final record: {body!r}")

    def ends(self, job: Job, result: dict) -> Findings:
        state, code = result["state"], result["error_code"]
        if code not in job.ends.get(state, ()):
            yield Finding("different", job.id, f"it ends as {state} '{code}': {result['error_message']}")
        if code == "worker_died" and result["error_message"] != f"worker died {self.death_limit} times":
            yield Finding("different", job.id, f"it ends as '{result['error_message']}'")
        if job.request and len(result["images"]) != job.request.count:
            yield Finding("different", job.id, f"it ends with {len(result['images'])} pictures, not {job.request.count}")
        scored = [image for image in result["images"] if "score" in image]
        ranking = [image["index"] for image in sorted(scored, key=lambda image: -image["score"])]
        best = result.get("best", [])
        if best != ranking[: len(best)] or bool(best) != bool(ranking):
            yield Finding("different", job.id, f"its best are {best}, but by their scores they are {ranking}")

    def announcements(self, job: Job, events: list[dict], results: list[dict]) -> Findings:
        """Each picture: how often it is announced, and whether the announcement, the result and the file agree."""
        passed = Counter(
            (e["image"], e["hop"], e["stage"], e.get("attempt", 0)) for e in events if e["type"] == "stage-finished"
        )
        for row, count in passed.items():
            if count > 1:
                yield Finding("doubled", job.id, f"{count} reports of {row}")
        told = defaultdict(list)
        for event in events:
            if event["type"] == "picture-finished":
                told[event["image"]].append(event)
        for image in told.keys() - set(range(job.request.count)):
            yield Finding("different", job.id, f"it has a picture {image}")
        images = results[0]["images"] if results else []
        stages = [hop["stage"] for hop in results[0]["route"][:-1]] if results else []
        for i, key in enumerate(job.request.keys()):
            image = images[i] if i < len(images) else {"state": "untold"}
            yield from self.picture(job, i, told[i], image)
            for hop, stage in enumerate(stages if image["state"] == "stored" else ()):
                if not any(row[:3] == (i, hop, stage) for row in passed):
                    yield Finding("lost", job.id, f"no report of picture {i} from {stage}, hop {hop}")
            for event in told[i]:
                yield from self.file(job, i, event, key)
                yield from self.score(job, i, event, key)

    def picture(self, job: Job, i: int, told: list[dict], image: dict) -> Findings:
        stored = image["state"] == "stored" or set(job.ends) == {"succeeded"}
        if stored or len(told) > 1:
            yield from exactly_one(job.id, f"announcement of picture {i}", len(told))
        if image["state"] != "stored":
            if set(job.ends) == {"succeeded"} and image["state"] != "untold":  # which is a finding of its own
                yield Finding("different", job.id, f"picture {i} is {image['state']} in its result")
            return
        if image["index"] != i or image["seed"] != job.request.seeds()[i]:
            yield Finding("different", job.id, f"picture {i} is number {image['index']} of seed {image['seed']}")
        fields = ("uri", "sha256", "width", "height", "score")
        if told and any(image.get(field) != told[0].get(field) for field in fields):
            yield Finding("different", job.id, f"picture {i} is not the same in its result and its announcement")

    def file(self, job: Job, i: int, event: dict, key: Key) -> Findings:
        try:
            data = self.read(event["uri"])
            found = digest(data)
        except OSError as error:
            yield Finding("lost", job.id, f"picture {i} has no file: {error}")
            return
        except ValueError as error:
            yield Finding("different", job.id, f"picture {i} cannot be read: {error}")
            return
        if hashlib.sha256(data).hexdigest() != event["sha256"]:
            yield Finding("different", job.id, f"picture {i}'s file is not the one that was announced")
        if key not in self.wanted or found != self.wanted[key].digest:
            yield Finding("different", job.id, f"picture {i} has other pixels or numbers than the undisturbed one")

    def score(self, job: Job, i: int, event: dict, key: Key) -> Findings:
        """It has one where the undisturbed one has, and the same."""
        score, wanted = event.get("score"), self.wanted[key].score if key in self.wanted else None
        if (score is None) != (wanted is None):
            yield Finding("different", job.id, f"picture {i} has the score {score}, the undisturbed one {wanted}")
        elif wanted is not None and not math.isclose(score, wanted, rel_tol=SCORE_DIGITS):
            yield Finding("different", job.id, f"picture {i} has the score {score}, not {wanted}")


def verdict(findings: Iterable[Finding], jobs: int, kills: int) -> str:
    count = Counter(finding.kind for finding in findings)
    return f"lost {count['lost']} doubled {count['doubled']} different {count['different']} jobs {jobs} kills {kills}"
