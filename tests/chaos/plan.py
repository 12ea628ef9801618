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

from recipes import DATA_URLS, LARGEST, OWN, RECIPES, Recipe, data_url, filled

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"

STAGES = ("text-encode", "prior", "decoder", "upsampler-1", "upsampler-2", "image-encode")
CLIENTS = ("ann", "bob", "cho")
CLASSES = ("interactive", "bulk")
DUPLICATES, CANCELLATIONS, CONFLICTS = 0.15, 0.05, 0.04  # of the jobs
HOOKED = 0.4  # of them
PARTITIONS = 8
JOBS = "unclip.jobs"
STORE = "store:"  # in addresses: the artifact store, whose place the run alone knows
HOOK = "hook:"  # in webhooks: their receiver

# How many of each pool: partitions move between the twos.
SLOTS = {stage: 2 if stage in ("decoder", "image-encode") else 1 for stage in STAGES} | {"coordinator": 2, "webhooks": 2}
COORDINATORS = tuple(f"coordinator-{slot}" for slot in range(SLOTS["coordinator"]))
WORKERS = tuple(f"{stage}-{slot}" for stage in STAGES for slot in range(SLOTS[stage]))
RANKED = "upsampler-2-0"
WEBHOOKS = tuple(f"webhooks-{slot}" for slot in range(SLOTS["webhooks"]))
IMAGE_ENCODERS = tuple(name for name in WORKERS if name.startswith("image-encode-"))
# Kind of blow → (how often in a round, whom it may hit). A round is shuffled, and they follow each other.
BLOWS: dict[str, tuple[int, tuple[str, ...]]] = {
    "kill": (5, WORKERS),
    "kill-image-encode": (2, IMAGE_ENCODERS),
    "kill-rank": (2, (RANKED,)),
    "kill-coordinator": (2, COORDINATORS),
    "kill-webhooks": (1, WEBHOOKS),
    "kill-redis": (1, ("redis",)),
    "empty-redis": (1, ("redis",)),
    "kill-broker": (1, ("kafka",)),
    "pause": (2, WORKERS + COORDINATORS + WEBHOOKS),
}
FIRST_BLOW_S, BLOW_GAP_S = 5.0, (3.0, 7.0)
PAUSE_S = 9.0  # longer than a session of the group lasts

@dataclass(frozen=True)
class Poison:
    """A job of `fields`, in which POISON stands for a text of its own, kills its worker each time it is at `point`, for the
    `nth` time in that worker's life."""

    point: str
    fields: dict
    nth: str = ""


POISON = "POISON"  # what keeps it out of the caches
QUICK = {"prior": 2, "decoder": 2}
POISONS = (
    Poison("worker.in_compute", {"type": "text-to-image", "prompt": POISON, "steps": QUICK}),  # the prior's first step
    # late in the decoder: no other stage takes so many
    Poison("worker.in_compute", {"type": "text-to-image", "prompt": POISON, "steps": {"prior": 2, "decoder": 12}}, ":10"),
    Poison("worker.before_store", {"type": "text-to-image", "prompt": POISON, "steps": QUICK}),
    # where image-encode ends the way: of a picture that it has judged, and of an embedding
    Poison("worker.before_store", {"type": "text-to-image", "prompt": POISON, "steps": QUICK, "score": True}),
    Poison("worker.before_store", {"type": "embed", "inputs": [{"text": POISON}]}),
)
POISONS_MAX = 10
# An address that a job is accepted with, though no worker can get a picture from it → what it then fails with.
SPOILT = {
    data_url(b"\x89PNG\r\n\x1a\n"): "invalid_image",
    data_url(b"<svg/>"): "invalid_image",
    "file:///etc/passwd": "url_refused",
    "store:/nobody/0.png": "not_found",
}
SPOILT_PER_MINUTE = 2
# What the supervisor starts also dies by itself, at the nth passing of one of these points, with N up to that number: a
# blow from outside seldom falls within the milliseconds of a transaction.
MOMENTS = {
    "worker": {"after_produce": 40, "before_commit": 40, "after_commit": 40, "before_begin": 40, "picture_stored": 40},
    "coordinator": {"after_produce": 150, "before_commit": 150, "after_commit": 150, "before_begin": 150, "in_replay": 8},
}
MOMENTS_DRAWN = 100
HOSTILE_PER_MINUTE = 6
REFUSALS = frozenset({"invalid_json", "invalid_job", "invalid_record", "too_large", "unsupported"})


Key = tuple[str, int]  # a recipe, and which of its results


@dataclass(frozen=True)
class Request:
    """What decides the results: `count` of them, by their seeds, the first of which is `seed`."""

    recipe: str
    seed: int = 0
    count: int = 1

    def keys(self) -> list[Key]:
        """Of each of its results."""
        return [(self.recipe, self.seed + i) for i in range(self.count)]

    def seeds(self) -> list[int]:
        """Of each of its results; frames all have the first one's."""
        recipe = RECIPES.get(self.recipe)
        still = recipe and "frames" in recipe.fields
        return [self.seed + (0 if still else i) for i in range(self.count)]


@dataclass(frozen=True)
class Job:
    """`ends`: the states that it may end in, with the error codes that are right there."""

    id: str
    request: Request | None  # None: refused, there are no results
    ends: dict[str, frozenset[str]]
    hooked: bool = False  # its end is to be told to its webhook


@dataclass(frozen=True)
class Letter:
    """The one dead letter of a record: found by its key and, as a key may have several, its code."""

    key: str
    codes: frozenset[str]


@dataclass(frozen=True)
class Send:
    """`once`: a second copy would not be the same as one. In `value` STORE stands for the artifact store, HOOK for
    the receiver of webhooks."""

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
    first: list[Send] = field(default_factory=list)  # jobs whose pictures later ones take: before all else, undisturbed
    sends: list[Send] = field(default_factory=list)
    blows: list[Blow] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    letters: list[Letter] = field(default_factory=list)
    strangers: set[str] = field(default_factory=set)  # jobs that hostile tasks name, and nobody submitted
    faults: list[str] = field(default_factory=list)  # UNCLIP_FAULT of all programs
    moments: list[str] = field(default_factory=list)  # one more of what is started, in turn

    def lines(self) -> Iterator[str]:
        """The plan as text, to be read and compared."""
        yield from (f"{send.at_s:8.3f} send {send.topic} {send.key} {send.value!r} {send.header!r}" for send in self.first + self.sends)
        yield from (f"{blow.at_s:8.3f} {blow.kind} {blow.target} {blow.pick}" for blow in self.blows)
        yield from (f"fault {fault}" for fault in self.faults + self.moments)


ENDS_WELL = {"succeeded": frozenset({""})}


def own_pictures(name: str) -> dict[str, str]:
    """Addresses of what the run's first jobs make."""
    return {picture: f"{STORE}/{name}-{picture}/0.png" for picture in OWN}


def body(fields: dict, **more: object) -> bytes:
    return json.dumps({"version": 1} | fields | more).encode()


def recipe_fields(name: str, recipe: Recipe, request: Request) -> dict:
    fields = filled(recipe.fields, DATA_URLS | own_pictures(name))
    if recipe.takes_n:
        fields["n"] = request.count
    if recipe.makes_pictures:
        fields["seed"] = request.seed
    return fields


def other_body(text: bytes) -> bytes:
    """Of another job: it says something else and, where it brings a picture, another one."""
    picture = DATA_URLS["plain"].encode(), DATA_URLS["other"].encode()
    return text.replace(*picture).replace(b'"client"', b'"metadata": {"other": true}, "client"')


def requests(rng: Random, count: int) -> Iterator[Request]:
    """Of every recipe at least one, as far as they go. The first is the largest, so that the shortest run has one for the
    ranks."""
    rest = [name for name in RECIPES if name != LARGEST]
    drawn = [*rng.sample(rest, len(rest)), *rng.choices(list(RECIPES), [row.share for row in RECIPES.values()], k=count)]
    later = drawn[: count - 1]
    rng.shuffle(later)
    for name in [LARGEST, *later]:
        recipe = RECIPES[name]
        wanted = rng.choice(recipe.counts)
        yield Request(name, rng.randrange(recipe.seeds - wanted + 1), wanted)


def add_first(plan: Plan, name: str) -> None:
    for picture, (recipe, seed) in OWN.items():
        request = Request(recipe, seed)
        plan.first.append(Send(0, JOBS, f"{name}-{picture}", body(recipe_fields(name, RECIPES[recipe], request))))
        plan.jobs[f"{name}-{picture}"] = Job(f"{name}-{picture}", request, ENDS_WELL)


def add_jobs(plan: Plan, rng: Random, name: str, count: int) -> None:
    times = sorted(rng.uniform(0, plan.seconds) for _ in range(count))
    for i, (at_s, request) in enumerate(zip(times, requests(rng, count), strict=True)):
        job_id = f"{name}-{i:04d}"
        fields = recipe_fields(name, RECIPES[request.recipe], request)
        hooked = rng.random() < HOOKED
        fields |= {"webhook": f"{HOOK}/{job_id}"} if hooked else {}
        text = body(fields, client=rng.choice(CLIENTS), **{"class": rng.choice(CLASSES)})
        ends, later = ENDS_WELL, at_s + rng.uniform(0.2, 15)
        plan.sends.append(Send(at_s, JOBS, job_id, text))
        fate = rng.random()
        if fate < DUPLICATES:
            plan.sends += [Send(later, JOBS, job_id, text)] * rng.choice((1, 1, 3))
        elif fate < DUPLICATES + CANCELLATIONS:
            ends = ends | {"cancelled": frozenset({"cancelled"})}
            plan.sends.append(Send(later, JOBS, job_id, b'{"version":1,"type":"cancel"}'))
        elif fate < DUPLICATES + CANCELLATIONS + CONFLICTS:
            plan.sends.append(Send(later, JOBS, job_id, other_body(text), once=True))
            plan.letters.append(Letter(job_id, frozenset({"conflict"})))
        plan.jobs[job_id] = Job(job_id, request, ends, hooked)


def add_poison(plan: Plan, rng: Random, name: str, count: int) -> None:
    """Jobs that kill whoever computes them."""
    for i in range(count):
        job_id = f"{name}-poison-{i}"
        poison = POISONS[i % len(POISONS)]
        codes = frozenset({"worker_died"})
        plan.faults.append(f"{poison.point}:kill@{job_id}{poison.nth}")
        fields = json.loads(json.dumps(poison.fields).replace(POISON, f"a red heart, {job_id}"))
        fields |= {"size": 64, "seed": 1} if "steps" in fields else {}
        text = body(fields, webhook=f"{HOOK}/{job_id}", **{"class": rng.choice(CLASSES)})
        plan.sends.append(Send(rng.uniform(0, plan.seconds * 0.7), JOBS, job_id, text))
        plan.jobs[job_id] = Job(job_id, Request("poison", 1 if "steps" in fields else 0), {"failed": codes}, True)
        plan.letters.append(Letter(f"{job_id}/0", codes))


def add_spoilt(plan: Plan, rng: Random, name: str, count: int) -> None:
    """Jobs of pictures that cannot be had: they fail by themselves, and take nobody along."""
    for i in range(count):
        job_id = f"{name}-spoilt-{i}"
        address, code = list(SPOILT.items())[i % len(SPOILT)]
        text = body({"type": "score", "prompt": "a red heart", "inputs": [{"image": address}]})
        plan.sends.append(Send(rng.uniform(0, plan.seconds), JOBS, job_id, text))
        plan.jobs[job_id] = Job(job_id, Request("spoilt"), {"failed": frozenset({code})})
        plan.letters.append(Letter(f"{job_id}/0", frozenset({code})))


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
    good = body({"type": "text-to-image", "prompt": "a red heart", "n": 1, "seed": 1})
    read = body({"type": "upscale", "image": DATA_URLS["plain"], "n": 1, "seed": 1})
    return rng.choice(
        (
            hostile_bytes(rng),
            b"a red heart, please",
            good[: rng.randrange(1, len(good))],
            good.replace(b'"n": 1', b'"n": 65'),
            good.replace(b'"n": 1', b'"n": 1e400'),
            good.replace(b'"version": 1', b'"version": 2'),
            good.replace(b'"seed"', b'"sede"'),
            read.replace(b"image/png", b"text/html"),
            read.replace(b"base64,", b"base64,!"),
            read[: rng.randrange(1, len(read))],
        )
    )


def hostile_task_header(rng: Random, job_id: str, stage: str) -> bytes:
    """A right header with a value that is wrong, a wrong one, none, or one that is far too long."""
    task = json.loads((SCHEMAS / "examples" / "task.json").read_text())
    task |= {"job": job_id, "hop": STAGES.index(stage), "home": rng.randrange(PARTITIONS), "size": 1024}
    task["route"] += [{"stage": stage, "steps": steps, "guidance": 0.0} for stage, steps in (("upsampler-2", 1), (STAGES[-1], 0))]
    right = b"task=" + json.dumps(task).encode()
    return rng.choice((right, right, right[: rng.randrange(6, len(right))], b"", b"task=" + b"{" * 60000))


def add_hostile(plan: Plan, rng: Random, name: str, count: int) -> None:
    """Records that nothing can be made of: each becomes one dead letter, and a job also a result."""
    for i in range(count):
        key = f"{name}-hostile-{i}"
        at_s = rng.uniform(0, plan.seconds)
        topic = (JOBS, "unclip.tasks.", "unclip.tasks.", "unclip.events")[i % 4]
        if topic == JOBS:
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
    add_first(plan, name)
    add_jobs(plan, Random(f"jobs {seed}"), name, max(1, round(minutes * jobs_per_minute)))
    add_poison(plan, Random(f"poison {seed}"), name, min(max(len(POISONS), round(minutes)), POISONS_MAX))
    add_spoilt(plan, Random(f"spoilt {seed}"), name, max(len(SPOILT), round(minutes * SPOILT_PER_MINUTE)))
    add_hostile(plan, Random(f"hostile {seed}"), name, max(4, round(minutes * HOSTILE_PER_MINUTE)))
    add_moments(plan, Random(f"moments {seed}"))
    add_blows(plan, Random(f"blows {seed}"))
    plan.sends.sort(key=lambda send: send.at_s)
    return plan
