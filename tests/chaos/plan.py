# SPDX-License-Identifier: Apache-2.0
"""What a chaos run does, and what must come of it: all of it made from the seed, before anything starts.

A plan has the records to send (jobs, duplicates, cancellations, poison), the blows to strike, and for each job how
it may end and for each poisonous record the dead letter that it must become. The same seed, minutes and rate give the
same plan, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"

STAGES = ("text-encode", "prior", "decoder", "upsampler-1", "upsampler-2")
STEPS = {"prior": 2, "decoder": 4, "upsampler-1": 2, "upsampler-2": 1}
# Size → (prompts, seeds, pictures of a job, share of the jobs): few distinct pictures, each made undisturbed first.
SIZES: dict[int, tuple[tuple[str, ...], int, tuple[int, ...], float]] = {
    64: (("a red heart", "a blue star", "a yellow sun"), 6, (1, 1, 1, 2, 4), 0.86),
    256: (("a red heart", "a green tree"), 3, (1, 2), 0.11),
    1024: (("a red heart",), 2, (1, 2), 0.03),
}
CLIENTS = ("ann", "bob", "cho")
DUPLICATES, CANCELLATIONS, CONFLICTS = 0.15, 0.05, 0.04  # of the jobs
PARTITIONS = 8

# How many of each pool: partitions move between the twos.
SLOTS = {"coordinator": 2, "text-encode": 1, "prior": 1, "decoder": 2, "upsampler-1": 1, "upsampler-2": 1}
COORDINATORS = tuple(f"coordinator-{slot}" for slot in range(SLOTS["coordinator"]))
WORKERS = tuple(f"{stage}-{slot}" for stage in STAGES for slot in range(SLOTS[stage]))
RANKED = "upsampler-2-0"
# Kind of blow → (how often in a round, whom it may hit). A round is shuffled, and they follow each other.
BLOWS: dict[str, tuple[int, tuple[str, ...]]] = {
    "kill": (5, WORKERS),
    "kill-rank": (2, (RANKED,)),
    "kill-coordinator": (2, COORDINATORS),
    "kill-redis": (1, ("redis",)),
    "empty-redis": (1, ("redis",)),
    "kill-broker": (1, ("kafka",)),
    "pause": (2, WORKERS + COORDINATORS),
}
FIRST_BLOW_S, BLOW_GAP_S = 5.0, (3.0, 7.0)
PAUSE_S = 9.0  # longer than a session of the group lasts

# A job of these kills its worker at that point, each time: after the prior's first step; late in the decoder, as no
# other stage takes so many; where its picture is stored. A process takes 16 faults.
POISONS = (("worker.in_compute", ""), ("worker.in_compute", ":10"), ("worker.before_store", ""))
POISON_STEPS = {"prior": 2, "decoder": 12}
POISONS_MAX = 10
# What the supervisor starts also dies by itself, at the nth passing of one of these points, with N up to that number: a
# blow from outside seldom falls within the milliseconds of a transaction.
MOMENTS = {
    "worker": {"after_produce": 40, "before_commit": 40, "after_commit": 40, "before_begin": 40, "picture_stored": 40},
    "coordinator": {"after_produce": 150, "before_commit": 150, "after_commit": 150, "before_begin": 150, "in_replay": 8},
}
MOMENTS_DRAWN = 100
HOSTILE_PER_MINUTE = 6
REFUSALS = frozenset({"invalid_json", "invalid_job", "invalid_record", "too_large", "unsupported"})


@dataclass(frozen=True)
class Request:
    """What decides the pixels."""

    prompt: str
    seed: int
    size: int
    n: int


@dataclass(frozen=True)
class Job:
    """`ends`: the states that it may end in, with the error codes that are right there."""

    id: str
    request: Request | None  # None: refused, there are no pictures
    ends: dict[str, frozenset[str]]


@dataclass(frozen=True)
class Letter:
    """The one dead letter of a record: found by its key and, as a key may have several, its code."""

    key: str
    codes: frozenset[str]


@dataclass(frozen=True)
class Send:
    """`once`: a second copy would not be the same as one."""

    at_s: float
    topic: str
    key: str
    value: bytes
    once: bool = False
    partition: int = -1
    header: bytes = b""


@dataclass(frozen=True)
class Blow:
    """`pick` chooses among the ranks."""

    at_s: float
    kind: str
    target: str
    pick: int


@dataclass
class Plan:
    seconds: float
    sends: list[Send] = field(default_factory=list)
    blows: list[Blow] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    letters: list[Letter] = field(default_factory=list)
    strangers: set[str] = field(default_factory=set)  # jobs that hostile tasks name, and nobody submitted
    faults: list[str] = field(default_factory=list)  # UNCLIP_FAULT of all programs
    moments: list[str] = field(default_factory=list)  # one more of what is started, in turn

    def lines(self) -> Iterator[str]:
        """The plan as text, to be read and compared."""
        yield from (f"{send.at_s:8.3f} send {send.topic} {send.key} {send.value!r} {send.header!r}" for send in self.sends)
        yield from (f"{blow.at_s:8.3f} {blow.kind} {blow.target} {blow.pick}" for blow in self.blows)
        yield from (f"fault {fault}" for fault in self.faults + self.moments)


ENDS_WELL = {"succeeded": frozenset({""})}


def steps_of(size: int) -> dict[str, int]:
    """Of the stages that such a picture goes through."""
    return {stage: STEPS[stage] for stage in STAGES[1 : 3 + list(SIZES).index(size)]}


def body(request: Request, **more: object) -> bytes:
    fields = {"version": 1, "type": "text-to-image", "prompt": request.prompt, "seed": request.seed}
    fields |= {"size": request.size, "n": request.n, "steps": steps_of(request.size)}
    return json.dumps(fields | more).encode()


def requests(rng: Random, count: int) -> Iterator[Request]:
    """The first one is the largest, so that the shortest run has one for the ranks."""
    for i in range(count):
        size = max(SIZES) if i == 0 else rng.choices(list(SIZES), [row[3] for row in SIZES.values()])[0]
        prompts, seeds, numbers, _ = SIZES[size]
        n = rng.choice(numbers)
        yield Request(rng.choice(prompts), rng.randrange(seeds - n + 1), size, n)


def add_jobs(plan: Plan, rng: Random, name: str, count: int) -> None:
    times = sorted(rng.uniform(0, plan.seconds) for _ in range(count))
    for i, (at_s, request) in enumerate(zip(times, requests(rng, count), strict=True)):
        job_id = f"{name}-{i:04d}"
        text = body(request, client=rng.choice(CLIENTS), **{"class": rng.choice(("interactive", "bulk"))})
        ends, later = ENDS_WELL, at_s + rng.uniform(0.2, 15)
        plan.sends.append(Send(at_s, "unclip.jobs", job_id, text))
        fate = rng.random()
        if fate < DUPLICATES:
            plan.sends += [Send(later, "unclip.jobs", job_id, text)] * rng.choice((1, 1, 3))
        elif fate < DUPLICATES + CANCELLATIONS:
            ends = ends | {"cancelled": frozenset({"cancelled"})}
            plan.sends.append(Send(later, "unclip.jobs", job_id, b'{"version":1,"type":"cancel"}'))
        elif fate < DUPLICATES + CANCELLATIONS + CONFLICTS:
            other = text.replace(b'"client"', b'"guidance": {"prior": 1}, "client"')
            plan.sends.append(Send(later, "unclip.jobs", job_id, other, once=True))
            plan.letters.append(Letter(job_id, frozenset({"conflict"})))
        plan.jobs[job_id] = Job(job_id, request, ends)


def add_poison(plan: Plan, rng: Random, name: str, count: int) -> None:
    """Jobs that kill whoever computes them. A prompt of its own keeps each out of the cache."""
    for i in range(count):
        job_id = f"{name}-poison-{i}"
        point, nth = POISONS[i % len(POISONS)]
        request = Request(f"a red heart, {job_id}", 1, 64, 1)
        codes = frozenset({"worker_died"})
        plan.faults.append(f"{point}:kill@{job_id}{nth}")
        text = body(request, steps=POISON_STEPS, **{"class": rng.choice(("interactive", "bulk"))})
        plan.sends.append(Send(rng.uniform(0, plan.seconds * 0.7), "unclip.jobs", job_id, text))
        plan.jobs[job_id] = Job(job_id, request, {"failed": codes})
        plan.letters.append(Letter(f"{job_id}/0", codes))


def hostile_bytes(rng: Random) -> bytes:
    """Never JSON, never safetensors."""
    header = b'{"rng":{"dtype":"U8","shape":[2516],"data_offsets":[0,2516]}}'
    return rng.choice(
        (
            b"\xff" + rng.randbytes(rng.randrange(1, 2000)),
            len(header).to_bytes(8, "little") + header[: rng.randrange(1, len(header))],  # cut in its header
            len(header).to_bytes(8, "little") + header + rng.randbytes(rng.randrange(2516)),  # cut in its data
            b"\xff" * 8 + header,  # a header longer than the world
            b"[" * rng.randrange(100, 50000),
        )
    )


def hostile_job(rng: Random) -> bytes:
    good = body(Request("a red heart", 1, 64, 1))
    return rng.choice(
        (
            hostile_bytes(rng),
            b"a red heart, please",
            good[: rng.randrange(1, len(good))],
            good.replace(b'"n": 1', b'"n": 65'),
            good.replace(b'"n": 1', b'"n": 1e400'),
            good.replace(b'"version": 1', b'"version": 2'),
            good.replace(b'"seed"', b'"sede"'),
        )
    )


def hostile_task_header(rng: Random, job_id: str, stage: str) -> bytes:
    """A right header with a value that is wrong, a wrong one, none, or one that is far too long."""
    task = json.loads((SCHEMAS / "examples" / "task.json").read_text())
    task |= {"job": job_id, "hop": STAGES.index(stage), "home": rng.randrange(PARTITIONS), "size": 1024}
    task["route"].append({"stage": "upsampler-2", "steps": 1, "guidance": 0.0})
    right = b"task=" + json.dumps(task).encode()
    return rng.choice((right, right, right[: rng.randrange(6, len(right))], b"", b"task=" + b"{" * 60000))


def add_hostile(plan: Plan, rng: Random, name: str, count: int) -> None:
    """Records that nothing can be made of: each becomes one dead letter, and a job also a result."""
    for i in range(count):
        key = f"{name}-hostile-{i}"
        at_s = rng.uniform(0, plan.seconds)
        topic = ("unclip.jobs", "unclip.tasks.", "unclip.tasks.", "unclip.events")[i % 4]
        if topic == "unclip.jobs":
            plan.jobs[key] = Job(key, None, {"failed": REFUSALS})
            plan.sends.append(Send(at_s, topic, key, hostile_job(rng), once=True))
        elif topic == "unclip.events":
            partition = rng.randrange(PARTITIONS)
            plan.sends.append(Send(at_s, topic, key, hostile_bytes(rng), once=True, partition=partition))
        else:
            stage = rng.choice(STAGES[1:])  # the first one takes no tensors
            topic += stage + rng.choice(("", ".bulk"))
            plan.strangers.add(key)
            header = hostile_task_header(rng, key, stage)
            plan.sends.append(Send(at_s, topic, key, hostile_bytes(rng), once=True, header=header))
        plan.letters.append(Letter(key, REFUSALS))


def add_moments(plan: Plan, rng: Random) -> None:
    for _ in range(MOMENTS_DRAWN):
        drawn = [(program, *rng.choice(list(points.items()))) for program, points in MOMENTS.items()]
        plan.moments.append(",".join(f"{program}.{point}:kill:{rng.randint(2, most)}" for program, point, most in drawn))


def add_blows(plan: Plan, rng: Random) -> None:
    at_s, deck = FIRST_BLOW_S, list[str]()
    while at_s < plan.seconds:
        deck = deck or rng.sample(kinds := [kind for kind, row in BLOWS.items() for _ in range(row[0])], len(kinds))
        kind = deck.pop()
        plan.blows.append(Blow(at_s, kind, rng.choice(BLOWS[kind][1]), rng.randrange(1 << 16)))
        at_s += rng.uniform(*BLOW_GAP_S)


def make_plan(seed: int, minutes: float, jobs_per_minute: float) -> Plan:
    """Each part draws from a generator of its own, so that one can change without the others."""
    plan = Plan(seconds=minutes * 60)
    name = f"chaos-{seed}"
    add_jobs(plan, Random(f"jobs {seed}"), name, max(1, round(minutes * jobs_per_minute)))
    add_poison(plan, Random(f"poison {seed}"), name, min(max(len(POISONS), round(minutes)), POISONS_MAX))
    add_hostile(plan, Random(f"hostile {seed}"), name, max(4, round(minutes * HOSTILE_PER_MINUTE)))
    add_moments(plan, Random(f"moments {seed}"))
    add_blows(plan, Random(f"blows {seed}"))
    plan.sends.sort(key=lambda send: send.at_s)
    return plan
