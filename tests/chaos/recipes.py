# SPDX-License-Identifier: Apache-2.0
"""What the jobs of a chaos run ask for: recipes, each a kind of job with its settings, small enough that it is quick.

A recipe alone says how its record and its command look, so that the undisturbed run in one process makes the same.
"@NAME" in a recipe stands for a picture's address: of one that is drawn here and travels as a data URL, or of one that
an earlier job has made, which lies in the artifact store.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pictures import encode

Fields = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """`fields`: of the record, without seed and n. `counts`: how many results a job may have, with seeds from 0 up to
    `seeds`: few distinct ones, each made undisturbed first. `share`: of the jobs, relative to the others."""

    fields: Fields
    share: float
    counts: tuple[int, ...] = (1,)
    seeds: int = 3

    @property
    def type(self) -> str:
        return self.fields["type"]

    @property
    def makes_pictures(self) -> bool:
        return self.type not in ("embed", "score")

    @property
    def takes_n(self) -> bool:
        return self.makes_pictures and "frames" not in self.fields and "best_of" not in self.fields

    @property
    def last_seed(self) -> int:
        """The largest of its results' seeds; also the last one's index where there is one set of results alone."""
        return self.seeds - 1


STEPS = {"prior": 2, "decoder": 4, "upsampler-1": 2, "upsampler-2": 1}


def making(kind: str, size: int, stages: tuple[str, ...], **more: object) -> Fields:
    return {"type": kind, "size": size, "steps": {stage: STEPS[stage] for stage in stages}} | more


BOTH = ("prior", "decoder")


def text(prompt: str, size: int = 64, stages: tuple[str, ...] = BOTH, **more: object) -> Fields:
    return making("text-to-image", size, stages, prompt=prompt, **more)


def single(fields: Fields, share: float, results: int = 1) -> Recipe:
    """Of a kind whose results are not told apart by their seeds."""
    return Recipe(fields, share, (results,), results)


SOME = (1, 1, 1, 2, 4)
LARGEST = "text-1024"  # goes through all of the stages, with the MPI ranks
RECIPES: dict[str, Recipe] = {
    "text-heart": Recipe(text("a red heart"), 14, SOME, 6),
    "text-star": Recipe(text("a blue star"), 10, SOME, 6),
    "text-256": Recipe(text("a green tree", 256, (*BOTH, "upsampler-1")), 6, (1, 2)),
    LARGEST: Recipe(text("a red heart", 1024, tuple(STEPS)), 2, (1, 2), 2),
    "prior-none": Recipe(text("a yellow sun", stages=("decoder",), prior="none"), 4, (1, 2)),
    "prior-candidates": Recipe(text("a yellow sun", prior_candidates=2), 3, (1, 2)),
    "sampler": Recipe(text("a blue star", sampler={"decoder": "dpm-solver++"}, reuse={"decoder": 2}), 3),
    "score-after": Recipe(text("a red heart", score=True), 5, (1, 3)),
    "best-of": Recipe(text("a red heart", best_of=3, n=1), 5, (3,), 5),
    "variation": Recipe(making("variation", 64, ("decoder",), image="@heart"), 5, (1, 2)),
    # from and to the same stage: image-encode reads the picture at first, and judges the result at last
    "variation-score": Recipe(
        making("variation", 64, ("decoder",), image="@plain", prompt="a red heart", score=True), 5, (1, 2)
    ),
    "variation-inversion": Recipe(
        making("variation", 64, ("decoder",), image="@star", start="inversion", sampler={"decoder": "ddim"}), 2
    ),
    "frames": single(
        making("interpolate", 64, BOTH, inputs=[{"image": "@heart"}, {"text": "a blue star"}], frames=3), 3, 3
    ),
    "mixture": Recipe(
        making("interpolate", 64, BOTH, inputs=[{"image": "@plain"}, {"text": "a cat", "weight": 2}]), 3, (1, 2)
    ),
    "edit": Recipe(
        making("edit", 64, BOTH, image="@heart", mask="@left", mask_mode="white", prompt="a green leaf", resample=1), 4
    ),
    "edit-score": Recipe(making("edit", 64, BOTH, image="@hole", prompt="a green leaf", resample=0, score=True), 4),
    "text-diff": single(
        making(
            "text-diff", 64, ("decoder",), image="@heart", **{"from": "a red heart", "to": "a blue heart"}, frames=2
        ),
        2,
        2,
    ),
    "upscale": Recipe(making("upscale", 256, ("upsampler-1",), image="@plain", **{"from": 64}), 4, (1, 2)),
    "embed": single(
        {"type": "embed", "inputs": [{"image": "@star"}, {"text": "a red heart"}, {"image": "@plain"}]}, 6, 3
    ),
    "embed-npy": single({"type": "embed", "inputs": [{"image": "@hole"}], "output": {"format": "npy"}}, 3),
    "score": single({"type": "score", "prompt": "a red heart", "inputs": [{"image": "@plain"}, {"image": "@heart"}]}, 6, 2),
}
OWN = {"heart": ("text-heart", 0), "star": ("text-star", 3)}  # picture → recipe and seed of the job that makes it


def drawn() -> dict[str, bytes]:
    """The pictures that travel as data URLs."""
    side = range(64)
    ramps = [[(x * 4, y * 4, 90, 255) for x in side] for y in side]
    return {
        "plain": encode(ramps),
        "other": encode([[(90, x * 4, y * 4, 255) for x in side] for y in side]),  # of nobody but conflicting jobs
        "left": encode([[(255, 255, 255, 255) if x < 32 else (0, 0, 0, 255) for x in side] for _ in side]),
        "hole": encode([[(*pixel[:3], 0 if x < 32 else 255) for x, pixel in enumerate(row)] for row in ramps]),
    }


def data_url(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


DATA_URLS = {name: data_url(picture) for name, picture in drawn().items()}


def filled(fields: Fields, addresses: Mapping[str, str]) -> Fields:
    """The fields with an address for each picture that they name."""
    written = json.dumps(fields)
    for name, address in addresses.items():
        written = written.replace(f'"@{name}"', json.dumps(address))
    return json.loads(written)


# --- as a command ---

OPERANDS = {
    "text-to-image": ("prompt",),
    "variation": ("image",),
    "interpolate": ("inputs",),
    "edit": ("image", "prompt"),
    "text-diff": ("image",),
    "upscale": ("image",),
    "embed": ("inputs",),
    "score": ("inputs",),
}


def operand(value: object) -> list[str]:
    if isinstance(value, list):
        return [entry.get("image") or f"text:{entry['text']}" for entry in value]
    return [str(value)]


def option(name: str, value: object) -> list[str]:
    if isinstance(value, dict):
        prefix = "" if name == "output" else f"{name}-"
        return [word for key, inner in value.items() for word in option(prefix + key, inner)]
    words = [f"--{name.replace('_', '-')}"]
    return words if value is True else [*words, str(value)]


def command_words(recipe: Recipe, files: Mapping[str, str]) -> list[str]:
    """The words after `unclip` that make all its results, without servers; `files` has the pictures."""
    fields = filled(recipe.fields, files)
    kind = fields.pop("type")
    if fields.pop("best_of", None):  # all of them are wanted, with what they are judged by
        fields |= {"score": True, "n": recipe.seeds}
    if recipe.takes_n:
        fields["n"] = recipe.seeds
    if recipe.makes_pictures:
        fields["seed"] = 0
    if any("weight" in entry for entry in fields.get("inputs", [])):
        fields["weight"] = ",".join(str(entry.get("weight", 1)) for entry in fields["inputs"])
    words = ["generate"] if kind == "text-to-image" else [kind, "--local"]
    words += [word for name in OPERANDS[kind] for word in operand(fields.pop(name))]
    return words + [word for name, value in fields.items() for word in option(name, value)]
