# SPDX-License-Identifier: Apache-2.0
"""The files of results: a digest of what counts in one (a PNG's pixels, an embedding's numbers), and PNGs of our own."""

from __future__ import annotations

import ast
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence

PNG = b"\x89PNG\r\n\x1a\n"
NPY = b"\x93NUMPY"


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """A PNG's chunks: type and content."""
    if data[:8] != PNG:
        raise ValueError("not a PNG")
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        content = data[at + 8 : at + 8 + length]
        check = data[at + 8 + length : at + 12 + length]
        if check != zlib.crc32(kind + content).to_bytes(4):
            raise ValueError("the PNG is cut or damaged")
        yield kind, content
        at += length + 12


def pixels(data: bytes) -> bytes:
    """Shape and pixels, without the text in the file. One encoder made all: its filters are equal too."""
    parts = list(chunks(data))
    shape = b"".join(content for kind, content in parts if kind == b"IHDR")
    return shape + zlib.decompress(b"".join(content for kind, content in parts if kind == b"IDAT"))


def embedding(shape: Sequence[int], values: bytes) -> bytes:
    if len(shape) != 1 or shape[0] * 4 != len(values):
        raise ValueError(f"an embedding of the shape {shape} in {len(values)} bytes")
    return f"f32 {shape[0]} ".encode() + values


def safetensors(data: bytes) -> bytes:
    """The numbers of the tensor `embedding`."""
    length = int.from_bytes(data[:8], "little")
    tensor = json.loads(data[8 : 8 + length])["embedding"]
    if tensor["dtype"] != "F32":
        raise ValueError(f"an embedding of {tensor['dtype']}")
    begin, end = tensor["data_offsets"]
    return embedding(tensor["shape"], data[8 + length + begin : 8 + length + end])


def npy(data: bytes) -> bytes:
    begin = 10 + int.from_bytes(data[8:10], "little")
    head = ast.literal_eval(data[10:begin].decode())
    if head["descr"] != "<f4":
        raise ValueError(f"an embedding of {head['descr']}")
    return embedding(head["shape"], data[begin:])


def digest(data: bytes) -> str:
    """ValueError where the file is not whole."""
    try:
        read = npy if data.startswith(NPY) else safetensors if data[8:9] == b"{" else pixels
        return hashlib.sha256(read(data)).hexdigest()
    except (zlib.error, KeyError, TypeError, SyntaxError) as error:
        raise ValueError(f"a broken file: {error}") from error


def encode(rows: Sequence[Sequence[tuple[int, int, int, int]]], words: bytes = b"") -> bytes:
    """A PNG of these RGBA pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)

    header = len(rows[0]).to_bytes(4) + len(rows).to_bytes(4) + bytes([8, 6, 0, 0, 0])
    raw = b"".join(b"\0" + bytes(value for pixel in row for value in pixel) for row in rows)
    parts = [(b"IHDR", header), (b"tEXt", words), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return PNG + b"".join(chunk(kind, content) for kind, content in parts if content or kind != b"tEXt")
