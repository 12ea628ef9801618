# SPDX-License-Identifier: Apache-2.0
"""Draws docs/gallery.md through `unclip generate`: the evaluation's prompts, seeds that count up, nothing picked.

The large pictures are those prompts again, with the same seeds. Remarks that somebody wrote under REMARKS stay as long
as the model does.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from PIL import Image

from .context import Context
from .data.captions import LANGUAGES
from .data.fetch import TRAINING
from .data.table import World
from .drawing import Engine, sheet
from .evaluation.prompts import SEED, SETS, ask
from .presets import PRESETS

ROOT = TRAINING.parent
SHARES = {  # of the prompts, by the evaluation's set
    "seen": 34, "held_out": 12, "relations": 18, "held_out_pairs": 8, "counts": 10, "colours": 8, "text": 6,
    "held_out_text": 4,
}
COLUMNS, LARGE_COLUMNS = 10, 4
SHOWN = 256  # of a large picture on its sheet
REMARKS = "## What is bad"
FINGERPRINT = "`cat {}/*/*.safetensors | sha256sum`: "


@dataclass(frozen=True)
class Prompt:
    text: str
    seed: int
    kind: str

    @property
    def held_out(self) -> bool:
        return SETS[self.kind][0]


def choose(world: World, count: int) -> list[Prompt]:
    """Prompts of all kinds in turn of a fixed shuffle, every other one in Chinese."""
    total = sum(SHARES.values())
    asked = [
        (kind, said) for kind, share in SHARES.items() for said in ask(world, kind, -(-share * count // total))[1]
    ]
    Random(SEED).shuffle(asked)
    return [Prompt(said[at % len(LANGUAGES)], SEED + at, kind) for at, (kind, said) in enumerate(asked[:count])]


def fingerprint(model: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(model.glob("*/*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def table(prompts: list[Prompt], columns: int) -> str:
    def cell(prompt: Prompt) -> str:
        text = prompt.text.replace("|", "\\|")
        return f"{text}\\*" if prompt.held_out else text

    lines = [" · ".join(map(cell, prompts[at : at + columns])) for at in range(0, len(prompts), columns)]
    return "| row | from left to right |\n|---|---|\n" + "".join(f"| {at} | {line} |\n" for at, line in enumerate(lines, 1))


def shown_path(path: Path) -> Path:
    """From the repository's root, where it lies there."""
    whole = path.resolve()
    return whole.relative_to(ROOT) if whole.is_relative_to(ROOT) else path


def page(model: Path, small: list[Prompt], large: list[Prompt], remarks: str) -> str:
    name = shown_path(model)
    return f"""# Gallery

What the model in `{name}` makes of {len(small)} prompts that nobody picked: they are the evaluation's first ones of each
kind, in an order shuffled once, every other one in Chinese, seeds {small[0].seed} to {small[-1].seed}. Those marked \\* ask for a
combination that was in no training picture. Drawn by `./training/gallery {name}` through `unclip generate`.

Weights, {FINGERPRINT.format(name)}`{fingerprint(model)}`

## {len(small)} at 64 pixels

![{len(small)} pictures of 64 pixels; the table below says what was asked for](images/gallery-64.png)

{table(small, COLUMNS)}
## {len(large)} at 1024 pixels, shown at {SHOWN}

The same prompts and seeds as some of those above, after both upsamplers.

![{len(large)} pictures of 1024 pixels, made small; the table below says what was asked for](images/gallery-1024.webp)

{table(large, LARGE_COLUMNS)}
The first of them at its full size:

![{large[0].text}](images/gallery-full.webp)
{remarks}"""


def remarks_of(path: Path, model: Path) -> str:
    """What was written below the pictures of these very weights."""
    text = path.read_text() if path.exists() else ""
    start = text.find(f"\n{REMARKS}")
    if start < 0:
        return ""
    if fingerprint(model) not in text:
        print(f"gallery: the remarks in '{path}' were about other weights, and are dropped", file=sys.stderr)
        return ""
    return text[start:]


def draw_gallery(engine: Engine, prompts: list[Prompt], large_count: int, docs: Path) -> None:
    """Writes the page and its pictures, all or none."""
    large = prompts[:: max(1, len(prompts) // large_count)][:large_count]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sheet([drawn(engine, p, 64) for p in prompts], COLUMNS, 64).save(folder / "gallery-64.png", optimize=True)
        pictures = [drawn(engine, p, 1024) for p in large]
        sheet(pictures, LARGE_COLUMNS, SHOWN).save(folder / "gallery-1024.webp", quality=88)
        pictures[0].save(folder / "gallery-full.webp", quality=88)
        (docs / "images").mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():
            shutil.copyfile(file, docs / "images" / file.name)
    path = docs / "gallery.md"
    path.write_text(page(engine.model, prompts, large, remarks_of(path, engine.model)))


def drawn(engine: Engine, prompt: Prompt, size: int) -> Image.Image:
    print(f"gallery: {size}: {prompt.text}", file=sys.stderr, flush=True)
    return engine.draw(prompt.text, prompt.seed, size)


def main() -> None:
    parser = argparse.ArgumentParser(prog="training/gallery", description="Draws docs/gallery.md and its pictures.")
    parser.add_argument("model", type=Path, nargs="?", default=ROOT / "models" / "emoji", help="(default: models/emoji)")
    parser.add_argument("--preset", choices=PRESETS, default="tiny", help="whose things to ask for (default: %(default)s)")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="prompts (default: %(default)s)")
    parser.add_argument("--large", type=int, default=12, metavar="N", help="of them also at 1024 pixels (default: %(default)s)")
    parser.add_argument(
        "--through", type=Path, default=ROOT / "build" / "bin" / "unclip", metavar="PROGRAM", help="(default: build/bin/unclip)"
    )
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", metavar="DIR", help="where to (default: docs)")
    options = parser.parse_args()
    if not 1 <= options.large <= options.count:
        raise SystemExit("gallery: --large is at least 1 and at most --count")
    context = Context(PRESETS[options.preset], options.docs, torch.device("cpu"))
    prompts = choose(context.world(context.concepts), options.count)
    draw_gallery(Engine(options.through.resolve(), options.model), prompts, options.large, options.docs)
