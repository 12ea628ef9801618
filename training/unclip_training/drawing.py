# SPDX-License-Identifier: Apache-2.0
"""Pictures through `unclip generate`, and sheets of pictures."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

GAP = 2  # pixels between pictures of a sheet


@dataclass(frozen=True)
class Engine:
    """One process a picture. `flags` are the command's own, such as --steps-decoder=10."""

    command: Path
    model: Path
    flags: tuple[str, ...] = ()

    def draw(self, text: str, seed: int, size: int) -> Image.Image:
        with tempfile.TemporaryDirectory() as out:
            done = subprocess.run(
                [self.command, "generate", "--model", self.model.resolve(), "--size", str(size), "--seed", str(seed),
                 "--out", out, "--quiet", *self.flags, "--", text],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
            )
            if done.returncode:
                raise SystemExit(f"'{text}' was not drawn: {done.stderr.strip()}")
            return Image.open(Path(out) / "0.png").convert("RGB")


def sheet(pictures: list[Image.Image], columns: int, side: int) -> Image.Image:
    columns = min(columns, len(pictures))
    lines = -(-len(pictures) // columns)
    out = Image.new("RGB", (columns * (side + GAP) - GAP, lines * (side + GAP) - GAP), "white")
    for at, picture in enumerate(pictures):
        if picture.width != side:
            picture = picture.resize((side, side), Image.Resampling.LANCZOS)
        out.paste(picture, (at % columns * (side + GAP), at // columns * (side + GAP)))
    return out
