# SPDX-License-Identifier: Apache-2.0
"""Pictures: a digest of a PNG's pixels, and the undisturbed pictures, made in one process without servers."""

from __future__ import annotations

import hashlib
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

from plan import SIZES, Request, steps_of

Key = tuple[str, int, int]  # prompt, seed, size


def keys_of(request: Request) -> list[Key]:
    """Of each of its pictures."""
    return [(request.prompt, request.seed + i, request.size) for i in range(request.n)]


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """A PNG's chunks: type and content."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("not a PNG")
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        content = data[at + 8 : at + 8 + length]
        if len(kind) != 4 or len(content) != length:
            raise ValueError("the PNG is cut")
        yield kind, content
        at += length + 12


def pixels(data: bytes) -> str:
    """A digest of shape and pixels, the text in the file aside. One encoder made all: its filters are equal too."""
    parts = list(chunks(data))
    shape = b"".join(content for kind, content in parts if kind == b"IHDR")
    rows = zlib.decompress(b"".join(content for kind, content in parts if kind == b"IDAT"))
    return hashlib.sha256(shape + rows).hexdigest()


def undisturbed(program: Path, model: Path, folder: Path) -> dict[Key, str]:
    """The pixels of every picture that a plan may ask for."""
    wanted = {}
    for size, (prompts, seeds, _, _) in SIZES.items():
        for prompt in prompts:
            out = folder / f"{size}-{prompt.replace(' ', '-')}"
            command = [program, "generate", prompt, "--model", model, "--seed", "0", "-n", str(seeds), "--quiet"]
            command += ["--size", str(size), "--out", out]
            for stage, steps in steps_of(size).items():
                command += [f"--steps-{stage}", str(steps)]
            words = [str(word) for word in command]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL, timeout=600)
            for seed in range(seeds):
                wanted[prompt, seed, size] = pixels((out / f"{seed}.png").read_bytes())
    return wanted
