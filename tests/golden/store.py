"""Golden files: safetensors whose bytes depend on their content alone.

The safetensors package writes metadata in the order of a hash table, so the files are written here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data"
DTYPES = {"float32": "F32", "int64": "I64", "uint8": "U8", "bool": "BOOL"}

# A tensor of more values than this is stored as a sample and sums, not whole.
WHOLE = 16384
SAMPLE = 4096


def write_safetensors(path: Path, tensors: Iterable[tuple[str, str, np.ndarray]], metadata: Mapping[str, str]) -> None:
    """Writes (name, safetensors dtype, array) in the order given, the header padded to 8 bytes."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    blobs = []
    start = 0
    for name, dtype, array in tensors:
        blobs.append(np.ascontiguousarray(array))
        end = start + array.nbytes
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for blob in blobs:
            file.write(blob.tobytes())


def save(case: str, tensors: Mapping[str, object], **settings: object) -> None:
    """Writes data/<case>.safetensors. Tensors are numpy or torch, wider dtypes first so that all lie aligned."""
    rows = []
    for name, tensor in tensors.items():
        array = np.asarray(tensor.detach().numpy() if hasattr(tensor, "detach") else tensor)
        rows.append((name, DTYPES[array.dtype.name], array))
    rows.sort(key=lambda row: (-row[2].itemsize, row[0]))
    DATA.mkdir(exist_ok=True)
    write_safetensors(DATA / f"{case}.safetensors", rows, {k: text(v) for k, v in sorted(settings.items())})


def text(value: object) -> str:
    """A setting as a C reader wants it: lists separated by spaces, true and false in lower case."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return " ".join(text(item) for item in value)
    return str(value)


def big(name: str, tensor: object) -> dict[str, np.ndarray]:
    """A tensor [b, c, h, w] whole if small; else every stride-th value in C order, with sums of each channel.

    `<name>.sample` is values[::stride], `<name>.stride` that stride, `<name>.sum` and `<name>.sumsq`
    [b, c] the float32 roundings of float64 sums over h and w, `<name>.shape` the whole shape.
    """
    array = np.asarray(tensor.detach().numpy() if hasattr(tensor, "detach") else tensor)
    if array.size <= WHOLE:
        return {name: array}
    stride = array.size // SAMPLE | 1
    wide = array.astype(np.float64)
    axes = tuple(range(2, array.ndim))
    return {
        f"{name}.sample": array.reshape(-1)[::stride],
        f"{name}.stride": np.array([stride], dtype=np.int64),
        f"{name}.shape": np.array(array.shape, dtype=np.int64),
        f"{name}.sum": wide.sum(axis=axes).astype(np.float32),
        f"{name}.sumsq": (wide**2).sum(axis=axes).astype(np.float32),
    }
