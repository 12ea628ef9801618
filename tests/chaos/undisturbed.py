# SPDX-License-Identifier: Apache-2.0
"""What must come of each recipe: made by the command line in one process, without servers, before anything else."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pictures import digest
from plan import Key
from recipes import OWN, RECIPES, Recipe, command_words, drawn

LIMIT_S = 600


@dataclass(frozen=True)
class Product:
    """A result: its file's digest and, where it is judged, its CLIP score."""

    digest: str
    score: float | None = None


def picture_files(folder: Path) -> dict[str, str]:
    """Where the pictures are that recipes name; those that a recipe makes, in its own folder."""
    inputs = folder / "inputs"
    inputs.mkdir(parents=True)
    for name, data in drawn().items():
        (inputs / f"{name}.png").write_bytes(data)
    files = {name: inputs / f"{name}.png" for name in drawn()}
    files |= {name: folder / recipe / f"{seed}.png" for name, (recipe, seed) in OWN.items()}
    return {name: str(file) for name, file in files.items()}


def make(program: Path, model: Path, recipe: Recipe, files: dict[str, str], out: Path) -> list[Product]:
    command = [str(program), *command_words(recipe, files), "--model", str(model), "--quiet", "--json"]
    command += ["--out", str(out)] if recipe.type != "score" else []
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=LIMIT_S)
    images = json.loads(done.stdout)["images"]
    judged = [files[entry["image"].removeprefix("@")] for entry in recipe.fields["inputs"]] if recipe.type == "score" else []
    paths = judged or [image["path"] for image in images]
    return [Product(digest(Path(path).read_bytes()), image.get("score")) for path, image in zip(paths, images, strict=True)]


def undisturbed(program: Path, model: Path, folder: Path) -> dict[Key, Product]:
    """Of every result that a plan may ask for. Recipes that others take pictures from come first in their table."""
    files, wanted = picture_files(folder), {}
    for name, recipe in RECIPES.items():
        for i, product in enumerate(make(program, model, recipe, files, folder / name)):
            wanted[name, i] = product
    return wanted
