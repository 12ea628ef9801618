"""Weights from a hash: the numpy twin of synth.c.

Weights are not committed. A line of a `weights.manifest` names a tensor, and its values follow from
the name alone, equal to the bit in C and in Python; README.md has the formula.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from store import write_safetensors

MANIFEST = "weights.manifest"
GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)
CHUNK = 1 << 20


@dataclass(frozen=True)
class Tensor:
    """One line of a manifest."""

    dtype: str
    name: str
    shape: tuple[int, ...]
    scale: float
    offset: float

    def line(self) -> str:
        shape = "x".join(map(str, self.shape))
        return f"{self.dtype} {self.name} {shape} {self.scale:g} {self.offset:g}"


@dataclass(frozen=True)
class Manifest:
    """The weights of one component: the file they go to and its tensors in order."""

    file: str
    tensors: tuple[Tensor, ...]

    def text(self) -> str:
        return "".join(f"{line}\n" for line in [f"file {self.file}", *(t.line() for t in self.tensors)])

    @staticmethod
    def parse(text: str) -> Manifest:
        first, *rest = text.splitlines()
        tensors = []
        for line in rest:
            dtype, name, shape, scale, offset = line.split(" ")
            tensors.append(Tensor(dtype, name, tuple(map(int, shape.split("x"))), float(scale), float(offset)))
        return Manifest(first.removeprefix("file "), tuple(tensors))


def fnv1a64(name: str) -> int:
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def splitmix64(state: np.ndarray) -> np.ndarray:
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(name: str, first: int, count: int) -> np.ndarray:
    """Values first..first+count of the stream `name`: float64 multiples of 2^-24 in [-0.5, 0.5)."""
    index = np.arange(first, first + count, dtype=np.uint64)
    bits = splitmix64(np.uint64(fnv1a64(name)) + index * GOLDEN_RATIO) >> np.uint64(40)
    return bits.astype(np.float64) * 2.0**-24 - 0.5


def fill(name: str, shape: tuple[int, ...], scale: float = 1.0, offset: float = 0.0) -> np.ndarray:
    """synth_fill: a float32 array of the stream `name`."""
    count = prod(shape)
    out = np.empty(count, dtype=np.float32)
    for first in range(0, count, CHUNK):
        part = uniform(name, first, min(CHUNK, count - first))
        out[first : first + len(part)] = part * np.float32(scale) + np.float64(np.float32(offset))
    return out.reshape(shape)


def bf16_bits(values: np.ndarray) -> np.ndarray:
    """The upper halves of finite float32 values, rounded to nearest even."""
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def stored(component: str, tensor: Tensor, dtype: str | None) -> tuple[str, np.ndarray]:
    """A tensor as its file holds it: (safetensors dtype, array)."""
    if tensor.dtype == "i64":
        index = np.arange(prod(tensor.shape), dtype=np.int64)
        return "I64", (index * int(tensor.scale) + int(tensor.offset)).reshape(tensor.shape)
    values = fill(f"{component}/{tensor.name}", tensor.shape, tensor.scale, tensor.offset)
    match dtype or tensor.dtype:
        case "f16":
            return "F16", values.astype(np.float16)
        case "bf16":
            return "BF16", bf16_bits(values)
        case "f32":
            return "F32", values
        case other:
            raise ValueError(f"unknown dtype '{other}'")


def synth_model(manifest_dir: Path, out_dir: Path, dtype: str | None = None) -> None:
    """Writes the model directory that the manifests describe; `dtype` replaces that of all float tensors."""
    for source in sorted(manifest_dir.rglob("*")):
        target = out_dir / source.relative_to(manifest_dir)
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif source.name == MANIFEST:
            manifest = Manifest.parse(source.read_text())
            component = source.parent.relative_to(manifest_dir).as_posix()
            write_safetensors(target.with_name(manifest.file), arrays(component, manifest, dtype), {"format": "pt"})
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def arrays(component: str, manifest: Manifest, dtype: str | None) -> Iterator[tuple[str, str, np.ndarray]]:
    for tensor in manifest.tensors:
        yield tensor.name, *stored(component, tensor, dtype)
