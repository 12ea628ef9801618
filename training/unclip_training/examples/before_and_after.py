# SPDX-License-Identifier: Apache-2.0
"""Draws the sheet of docs/fine-tuning.md: what a model and its fine-tuned form make of the same prompts and seeds, under
the pictures that it was fine-tuned on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from ..drawing import Engine, sheet
from ..gallery import ROOT

SIDE = 64
SEED = 1
PROMPTS = {  # to the picture that shows it, if one does
    "a camera": "camera", "a crown": "crown", "钥匙": "key", "a jack-o-lantern": "jackolantern",
    "a cat": "", "披萨": "", "a red apple": "", "an airplane": "",
    "a camera on a blue background": "", "a crown to the left of a cat": "", "沙漏，红色背景": "", "three balloons": "",
}


def shown(own: Path, name: str) -> Image.Image:
    if not name:
        return Image.new("RGB", (SIDE, SIDE), "white")
    return Image.open(own / f"{name}.png").convert("RGB")


def compare(engines: list[Engine], own: Path) -> Image.Image:
    """A row of pictures that were shown, and one a model."""
    drawn = ([engine.draw(text, SEED + at, SIDE) for at, text in enumerate(PROMPTS)] for engine in engines)
    rows = [[shown(own, name) for name in PROMPTS.values()], *drawn]
    return sheet([picture for row in rows for picture in row], len(PROMPTS), SIDE)


def main() -> None:
    parser = argparse.ArgumentParser(prog="training/examples/before-and-after", description="Compares two models on a sheet.")
    parser.add_argument("before", type=Path, metavar="MODEL", help="that was fine-tuned")
    parser.add_argument("after", type=Path, metavar="TUNED", help="what came out")
    parser.add_argument("own", type=Path, metavar="FOLDER", help="of fifty-pictures")
    parser.add_argument("sheet", type=Path, metavar="SHEET", help="the PNG to write")
    parser.add_argument(
        "--through", type=Path, default=ROOT / "build" / "bin" / "unclip", metavar="PROGRAM", help="(default: build/bin/unclip)"
    )
    options = parser.parse_args()
    engines = [Engine(options.through.resolve(), model) for model in (options.before, options.after)]
    options.sheet.parent.mkdir(parents=True, exist_ok=True)
    compare(engines, options.own).save(options.sheet, optimize=True)
    print(f"{options.sheet}: from left to right {', '.join(PROMPTS)}")
