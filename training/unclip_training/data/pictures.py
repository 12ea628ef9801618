# SPDX-License-Identifier: Apache-2.0
"""A person's own pictures and captions: a folder (cat.png with cat.txt) or WebDataset shards (*.tar of the same).

A caption file holds one caption a line; where there are several, any of them may stand for the picture. Pictures are
cropped to a square in the middle, laid on white where they are transparent, and kept at every training size in
memory-mapped arrays.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from ..tokenizer import Tokenizer

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
CAPTIONS = 2  # kept of each picture, as a scene has one in each of two languages
MAX_PIXELS = 1 << 26


def members_of(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of a shard, or of a folder and those below it, in order."""
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            if file.suffix == ".tar":
                yield from members_of(file)
            elif file.suffix.lower() in SUFFIXES | {".txt", ".json"}:
                yield str(file.with_suffix("")) + file.suffix.lower(), file.read_bytes()
        return
    with tarfile.open(path) as shard:
        for member in shard:
            content = shard.extractfile(member)
            if content:
                yield f"{path}/{member.name}", content.read()


def samples(paths: list[Path]) -> Iterator[tuple[bytes, list[str]]]:
    """Pictures as encoded, with their captions; files of one sample stand next to each other, as in WebDataset."""
    key, picture, captions = "", b"", list[str]()
    for path in paths:
        for name, content in members_of(path):
            pure = PurePosixPath(name)
            stem = str(pure.parent / pure.name.split(".")[0])
            if stem != key:
                if picture and captions:
                    yield picture, captions
                key, picture, captions = stem, b"", []
            suffix = pure.suffix.lower()
            if suffix in SUFFIXES:
                picture = content
            elif suffix == ".txt":
                captions = [line.strip() for line in content.decode().splitlines() if line.strip()]
            elif suffix == ".json" and not captions:
                caption = json.loads(content).get("caption")
                captions = [caption] if isinstance(caption, str) and caption.strip() else []
    if picture and captions:
        yield picture, captions


def squared(encoded: bytes, size: int) -> np.ndarray:
    """uint8 [size, size, 3]."""
    with Image.open(io.BytesIO(encoded)) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"a picture of {opened.width} x {opened.height} is too large")
        picture = ImageOps.exif_transpose(opened).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    picture = Image.alpha_composite(white, picture).convert("RGB")
    return np.asarray(ImageOps.fit(picture, (size, size), Image.Resampling.BOX if picture.width > size else Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class Pictures:
    tokens: Tensor  # int16 [n, CAPTIONS, length]
    meaning: Tensor  # int64 [n]: equal where the captions are
    levels: dict[int, Tensor]  # by side: uint8 [n, side, side, 3]
    group: int = 1

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def device(self) -> torch.device:
        return self.tokens.device

    def draw(self, index: Tensor, size: int, corner: Tensor | None = None, side: float = 1.0) -> Tensor:
        """As Scenes.draw; corners lie on the grid of the level that the window is cut from."""
        whole = round(size / side)
        level = min((s for s in self.levels if s >= whole), default=max(self.levels))
        stored, across, there = self.levels[level], round(level * side), index.to(self.device, non_blocking=True)
        if corner is None:
            crops = stored[there]
        else:
            reach = torch.arange(across, device=self.device)
            columns, lines = ((corner[:, axis] * level).round().long()[:, None] + reach for axis in (0, 1))
            crops = stored[there[:, None, None], lines[:, :, None], columns[:, None, :]]
        picture = crops.permute(0, 3, 1, 2).float() / 127.5 - 1
        if across == size:
            return picture.contiguous()
        return functional.interpolate(picture, size=(size, size), mode="bicubic", antialias=True).clamp(-1, 1)


def open_pictures(
    paths: list[Path], folder: Path, tokenizer: Tokenizer, sizes: tuple[int, ...], device: torch.device
) -> Pictures:
    """The pictures at `sizes`, decoded on the first call and mapped from `folder` afterwards."""
    files = [[str(p), p.stat().st_size, p.stat().st_mtime_ns] for path in paths for p in sorted([path, *path.rglob("*")])]
    key = hashlib.sha256(json.dumps([files, tokenizer.fingerprint, sizes]).encode()).hexdigest()[:16]
    path = folder / f"pictures-{key}"
    if not path.exists():
        write_pictures(path, paths, tokenizer, sizes)
    load = {name: torch.from_numpy(np.load(path / f"{name}.npy")).to(device) for name in ("tokens", "meaning")}
    levels = {side: torch.from_numpy(np.load(path / f"{side}.npy")).to(device) for side in sizes}
    return Pictures(load["tokens"], load["meaning"], levels)


def write_pictures(path: Path, paths: list[Path], tokenizer: Tokenizer, sizes: tuple[int, ...]) -> None:
    found = list(samples(paths))
    if not found:
        raise ValueError(f"no picture with a caption in {', '.join(map(str, paths))}")
    partial = path.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    said = [[captions[at % len(captions)] for at in range(CAPTIONS)] for _, captions in found]
    np.save(partial / "tokens.npy", np.stack([tokenizer.encode([s[at] for s in said]) for at in range(CAPTIONS)], axis=1))
    digests = [hashlib.blake2b("\n".join(captions).encode(), digest_size=8).digest() for _, captions in found]
    np.save(partial / "meaning.npy", np.array([int.from_bytes(d, "little", signed=True) for d in digests], np.int64))
    for side in sizes:
        array = np.lib.format.open_memmap(partial / f"{side}.npy", "w+", np.uint8, (len(found), side, side, 3))
        for at, (encoded, _) in enumerate(found):
            array[at] = squared(encoded, side)
        array.flush()
    os.replace(partial, path)
