# SPDX-License-Identifier: Apache-2.0
"""What the model is asked for: fixed by a seed, each scene in both languages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np

from ..context import Context
from ..data.captions import LANGUAGES
from ..data.scenes import GROUP, Scene
from ..data.table import LABELS, SceneTable, World, rows

SEED = 2001


@dataclass(frozen=True)
class Prompts:
    scenes: list[Scene]
    captions: list[tuple[str, ...]]  # by language
    table: SceneTable

    def __len__(self) -> int:
        return len(self.scenes)

    def labels(self, name: str) -> np.ndarray:
        return self.table.labels[:, LABELS.index(name)].astype(np.int64)

    def category(self, context: Context) -> list[str]:
        subgroups = {concept.code: concept.subgroup for concept in context.concepts}
        return [subgroups.get(scene.things[0].name, "shape") for scene in self.scenes]


def plain(scene: Scene) -> bool:
    """An icon by its name alone, or on a background."""
    return scene.kind == "single" and scene.things[0].kind == "icon" and not scene.things[0].colour


SETS: dict[str, tuple[bool, Callable[[Scene], bool]]] = {  # name to: held out?, and which scenes
    "seen": (False, plain),
    "held_out": (True, plain),
    "relations": (False, lambda scene: scene.kind == "pair"),
    "held_out_pairs": (True, lambda scene: scene.kind == "pair"),
    "counts": (False, lambda scene: scene.kind == "count"),
    "colours": (False, lambda scene: scene.kind == "single" and bool(scene.things[0].colour)),
    "text": (False, lambda scene: scene.kind == "sign"),
    "held_out_text": (True, lambda scene: scene.kind == "sign"),
}


def ask(world: World, name: str, count: int, seed: int = SEED) -> tuple[list[Scene], list[tuple[str, ...]]]:
    """`count` different scenes of a set, and their captions in each language."""
    held_out, wanted = SETS[name]
    source, speaker, rng = world.source(seed), world.captions(), Random(f"{name}/{seed}")
    scenes: list[Scene] = []
    for group in range(10_000 * count // GROUP):
        scene = source.group(group, held_out)[0]
        if wanted(scene) and scene not in scenes:
            scenes.append(scene)
        if len(scenes) == count:
            break
    return scenes, [tuple(speaker.say(scene, language, rng, keywords=0) for language in LANGUAGES) for scene in scenes]


def prompts(context: Context, name: str, count: int, seed: int = SEED) -> Prompts:
    world = context.world(context.concepts)
    scenes, captions = ask(world, name, count, seed)
    return Prompts(scenes, captions, rows(scenes, captions, world, context.tokenizer, Random(f"layout/{name}/{seed}")))
