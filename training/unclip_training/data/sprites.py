# SPDX-License-Identifier: Apache-2.0
"""Renders every sprite once (icons, shapes, sign board, words) into one memory-mapped array with all its mip levels.

The atlas is uint8 [sprites, texels, 4]: premultiplied RGBA; a sprite's levels lie one behind the other, from
`size` x `size` down to MIN_LEVEL, each the mean of 2 x 2 texels of the one before. Shapes and words are white, to be
tinted by the compositor.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from . import icons
from .scenes import SHAPES, WORDS

MIN_LEVEL = 16
FONT = Path("dejavu-fonts-ttf") / "ttf" / "DejaVuSans-Bold.ttf"

SHAPE_PATHS = {
    "square": '<rect x="6" y="6" width="88" height="88"/>',
    "circle": '<circle cx="50" cy="50" r="46"/>',
    "triangle": '<path d="M50 6 96 92H4z"/>',
    "star": '<path d="M50 3l11.8 34.3 36.2.6-29 21.8 10.6 34.7L50 73.6 20.4 94.4 31 59.7 2 37.9l36.2-.6z"/>',
    "diamond": '<path d="M50 3 90 50 50 97 10 50z"/>',
    "cross": '<path d="M35 5h30v30h30v30H65v30H35V65H5V35h30z"/>',
    "ring": '<circle cx="50" cy="50" r="35" fill="none" stroke="#fff" stroke-width="22"/>',
    "hexagon": '<path d="M27 8h46l24 42-24 42H27L3 50z"/>',
    "sign": '<rect x="4" y="22" width="92" height="56" rx="8" fill="#999"/>'
            '<rect x="8" y="26" width="84" height="48" rx="6"/>',
}
assert SHAPE_PATHS.keys() == SHAPES.keys() | {"sign"}


def levels(size: int) -> list[int]:
    """The sides of a sprite's mip levels, largest first."""
    found = [size]
    while found[-1] > MIN_LEVEL:
        found.append(found[-1] // 2)
    return found


def sprite_names(concepts: tuple[icons.Concept, ...], styles: tuple[str, ...]) -> list[str]:
    found = [f"{style}:{concept.code}" for style in styles for concept in concepts]
    return found + [f"shape:{name}" for name in SHAPE_PATHS] + [f"word:{word}" for word in WORDS]


def render_svg(document: str, size: int) -> np.ndarray:
    """Premultiplied RGBA [size, size, 4], the drawing centred with a margin of a fiftieth."""
    import resvg_py

    inner = size - 2 * (size // 50)
    drawn = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=document, width=inner, skip_system_fonts=True))))
    if drawn.height > inner:
        drawn = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=document, height=inner, skip_system_fonts=True))))
    canvas = Image.new("RGBA", (size, size))
    canvas.paste(drawn.convert("RGBA"), ((size - drawn.width) // 2, (size - drawn.height) // 2))
    pixels = np.asarray(canvas).astype(np.float32)
    pixels[..., :3] *= pixels[..., 3:] / 255
    return np.rint(pixels).astype(np.uint8)


def render_word(word: str, size: int, font: Path) -> np.ndarray:
    """White text that fills the width, but at most two fifths of the height."""
    probe = ImageFont.truetype(str(font), 100)
    left, top, right, bottom = probe.getbbox(word)
    scale = min(0.96 * size / (right - left), 0.4 * size / (bottom - top))
    canvas = Image.new("L", (size, size))
    face = ImageFont.truetype(str(font), max(4, int(100 * scale)))
    ImageDraw.Draw(canvas).text((size / 2, size / 2), word, font=face, anchor="mm", fill=255)
    return np.repeat(np.asarray(canvas)[..., None], 4, axis=2)


def render(name: str, size: int, packages: Path) -> np.ndarray:
    family, what = name.split(":", 1)
    if family == "word":
        return render_word(what, size, packages / FONT)
    if family == "shape":
        return render_svg(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100" fill="#fff">{SHAPE_PATHS[what]}</svg>', size)
    return render_svg(icons.svg(packages, family, what), size)


def with_mips(pixels: np.ndarray) -> np.ndarray:
    """All levels of a sprite as [texels, 4]."""
    found = [pixels.reshape(-1, 4)]
    level = pixels.astype(np.float32)
    while level.shape[0] > MIN_LEVEL:
        half = level.shape[0] // 2
        level = level.reshape(half, 2, half, 2, 4).mean(axis=(1, 3))
        found.append(np.rint(level).astype(np.uint8).reshape(-1, 4))
    return np.concatenate(found)


def render_with_mips(name: str, size: int, packages: Path) -> np.ndarray:
    return with_mips(render(name, size, packages))


@dataclass(frozen=True)
class Atlas:
    names: list[str]
    size: int
    texels: np.ndarray  # uint8 [sprites, texels of all levels, 4]

    def index(self) -> dict[str, int]:
        return {name: at for at, name in enumerate(self.names)}


def open_atlas(folder: Path, names: Iterable[str], size: int, packages: Path, processes: int) -> Atlas:
    """The atlas of these sprites, rendered on the first call and mapped from `folder` afterwards."""
    wanted = list(names)
    lock = hashlib.sha256((packages / ".package-lock.json").read_bytes()).hexdigest()
    key = hashlib.sha256(json.dumps([wanted, size, MIN_LEVEL, SHAPE_PATHS, lock]).encode()).hexdigest()[:16]
    path = folder / f"atlas-{size}-{key}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_atlas(path, wanted, size, packages, processes)
    return Atlas(wanted, size, np.load(path, mmap_mode="c"))


def write_atlas(path: Path, names: list[str], size: int, packages: Path, processes: int) -> None:
    texels = sum(side * side for side in levels(size))
    partial_path = path.with_suffix(".partial")
    array = np.lib.format.open_memmap(partial_path, "w+", np.uint8, (len(names), texels, 4))
    work = partial(render_with_mips, size=size, packages=packages)
    if processes > 1:
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            for at, pixels in enumerate(pool.map(work, names, chunksize=8)):
                array[at] = pixels
    else:
        for at, name in enumerate(names):
            array[at] = work(name)
    array.flush()
    os.replace(partial_path, path)
