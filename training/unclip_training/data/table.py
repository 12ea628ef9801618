# SPDX-License-Identifier: Apache-2.0
"""A data set of scenes as arrays: what to draw, its captions as tokens, and what a judge should see in it.

A scene takes some 300 bytes, so that a million of them lie in memory (or in a GPU's) and are drawn again whenever
they are needed. The arrays are kept as .npy files and mapped.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random

import numpy as np

from ..tokenizer import Tokenizer
from .captions import LANGUAGES, Captions
from .icons import Concept
from .scenes import COLOUR_NAMES, COLOURS, MAX_LAYERS, GROUP, SHAPES, WORDS, Mix, Scene, SceneSource, Thing, layout

LABELS = ("kind", "first", "second", "relation", "count", "background", "first_colour", "second_colour", "word", "style")
KINDS = ("single", "count", "pair", "sign")
AXES = ("", "horizontal", "vertical", "inside")
CHUNK = 1024  # groups a process makes at a time


@dataclass(frozen=True)
class World:
    """Everything scenes are made of; equal worlds and seeds give equal tables."""

    concepts: tuple[Concept, ...]
    styles: tuple[str, ...]
    mix: Mix
    sprites: dict[str, int]

    def things(self) -> list[str]:
        """The classes that judges tell apart, by Thing.key; then comes "none"."""
        return [f"icon:{c.code}" for c in self.concepts] + [f"shape:{s}" for s in (*SHAPES, "sign")]

    def source(self, seed: int) -> SceneSource:
        return SceneSource(self.concepts, self.styles, self.mix, seed)

    def captions(self) -> Captions:
        return Captions(self.concepts, self.styles[0])


@dataclass(frozen=True)
class SceneTable:
    sprite: np.ndarray  # int32 [n, MAX_LAYERS], -1 where there is no layer
    place: np.ndarray  # float32 [n, MAX_LAYERS, 3]: x, y, size
    tint: np.ndarray  # uint8 [n, MAX_LAYERS, 4]: colour, and 255 where it is used
    background: np.ndarray  # uint8 [n, 3]
    tokens: np.ndarray  # int16 or int32 [n, languages, length], padded with the end token
    meaning: np.ndarray  # int64 [n]: equal where scenes mean the same
    labels: np.ndarray  # int16 [n, LABELS]

    def __len__(self) -> int:
        return len(self.sprite)


def ordered(scene: Scene) -> tuple[Thing, Thing | None, int]:
    """The things from left to right, top to bottom or inside to outside, and the axis along which they lie."""
    first = scene.things[0]
    if scene.kind != "pair":
        return first, None, 0
    second = scene.things[1]
    if scene.relation in ("right of", "below"):
        first, second = second, first
    axis = {"left of": 1, "right of": 1, "above": 2, "below": 2, "inside": 3}[scene.relation]
    return first, second, axis


def colour_label(thing: Thing | None) -> int:
    """0 for none, else 1 + its place among the colours."""
    return 1 + COLOUR_NAMES.index(thing.colour) if thing and thing.colour else 0


def label(scene: Scene, things: dict[str, int], styles: tuple[str, ...]) -> list[int]:
    first, second, axis = ordered(scene)
    style = next((t.style for t in scene.things if t.style), styles[0])
    return [
        KINDS.index(scene.kind), things[first.key], things[second.key] if second else len(things), axis, scene.count,
        COLOUR_NAMES.index(scene.background), colour_label(first), colour_label(second),
        1 + WORDS.index(scene.word) if scene.word else 0, styles.index(style),
    ]


def meaning(scene: Scene) -> int:
    digest = hashlib.blake2b(repr(scene).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def rows(scenes: list[Scene], captions: list[tuple[str, ...]], world: World, tokenizer: Tokenizer, rng: Random) -> SceneTable:
    """The table of these scenes with one caption a language each; `rng` draws the layouts."""
    count = len(scenes)
    things = {key: at for at, key in enumerate(world.things())}
    sprite = np.full((count, MAX_LAYERS), -1, np.int32)
    place = np.zeros((count, MAX_LAYERS, 3), np.float32)
    tint = np.zeros((count, MAX_LAYERS, 4), np.uint8)
    for row, scene in enumerate(scenes):
        for at, layer in enumerate(layout(scene, rng)):
            sprite[row, at] = world.sprites[layer.sprite]
            place[row, at] = layer.x, layer.y, layer.size
            if layer.tint:
                tint[row, at] = *COLOURS[layer.tint], 255
    tokens = np.stack([tokenizer.encode([said[at] for said in captions]) for at in range(len(LANGUAGES))], axis=1)
    return SceneTable(
        sprite, place, tint,
        np.array([COLOURS[scene.background] for scene in scenes], np.uint8),
        tokens,
        np.array([meaning(scene) for scene in scenes], np.int64),
        np.array([label(scene, things, world.styles) for scene in scenes], np.int16),
    )


def chunk_rows(first: int, groups: int, world: World, tokenizer: Tokenizer, seed: int, held_out: bool) -> SceneTable:
    source, speaker = world.source(seed), world.captions()
    rng = Random(f"layout/{seed}/{first}/{held_out}")
    stop = min(first + CHUNK, groups)
    scenes = [scene for group in range(first, stop) for scene in source.group(group, held_out)]
    captions = [tuple(speaker.say(scene, language, rng) for language in LANGUAGES) for scene in scenes]
    return rows(scenes, captions, world, tokenizer, rng)


def chunks(world: World, tokenizer: Tokenizer, seed: int, groups: int, held_out: bool, processes: int) -> Iterator[SceneTable]:
    work = partial(chunk_rows, groups=groups, world=world, tokenizer=tokenizer, seed=seed, held_out=held_out)
    starts = range(0, groups, CHUNK)
    if processes == 1:
        yield from map(work, starts)
    else:
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            yield from pool.map(work, starts)


def open_table(
    folder: Path, world: World, tokenizer: Tokenizer, seed: int, count: int, held_out: bool = False, processes: int = 1
) -> SceneTable:
    """The first `count` scenes of a seed (rounded up to whole groups), made on the first call and mapped afterwards."""
    groups = -(-count // GROUP)
    facts = [asdict(world), tokenizer.fingerprint, seed, groups, held_out, COLOURS, CHUNK]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"scenes-{key}"
    if not path.exists():
        write_table(path, world, tokenizer, seed, groups, held_out, processes)
    return SceneTable(**{name: np.load(path / f"{name}.npy", mmap_mode="r") for name in SceneTable.__dataclass_fields__})


def write_table(
    path: Path, world: World, tokenizer: Tokenizer, seed: int, groups: int, held_out: bool, processes: int
) -> None:
    parts = list(chunks(world, tokenizer, seed, groups, held_out, processes))
    partial_path = path.with_suffix(".partial")
    shutil.rmtree(partial_path, ignore_errors=True)
    partial_path.mkdir(parents=True)
    for name in SceneTable.__dataclass_fields__:
        np.save(partial_path / f"{name}.npy", np.concatenate([getattr(part, name) for part in parts]))
    os.replace(partial_path, path)
