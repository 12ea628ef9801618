# SPDX-License-Identifier: Apache-2.0
"""Model directories in diffusers' layout: reads a network's weights from whatever file holds them, writes the result beside
its place and renames it when it is whole. Names in an index file come from strangers and never leave their folder.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import Refused, lora, pickles
from .precision import converted, dequantised

STEMS = {"diffusion_pytorch_model": "diffusion_pytorch_model", "pytorch_model": "model", "model": "model"}  # to the result's
PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".th")
WEIGHTS = (".safetensors", *PICKLED, ".onnx", ".msgpack", ".h5")  # nothing of these is copied as it is
INDEX = ".index.json"
JSON_MAX, COPIED_MAX = 16 << 20, 64 << 20  # bytes of an index, of a settings file (a tokenizer's may be large)
SHARDS_MAX = 1000
Change = Callable[[str, dict[str, Tensor]], dict[str, Tensor]]  # folder's name and its tensors to what is written


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, or of the parts that an index names; int8 ones as f32."""
    try:
        return dequantised(read_shards(path) if path.name.endswith(INDEX) else read_one(path))
    except Refused as error:
        raise Refused(str(error) if str(path.parent) in str(error) else f"'{path}': {error}") from None


def read_one(path: Path) -> dict[str, Tensor]:
    if path.suffix in PICKLED:
        return pickles.load(path)
    if path.suffix != ".safetensors":
        raise Refused(f"'{path}' is none of .safetensors, {', '.join(PICKLED)}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise Refused(f"'{path}' can't be read: {error}") from None


def write(tensors: dict[str, Tensor], path: Path) -> None:
    """Tensors that share memory, or lie in steps, are copied first: the format has neither."""
    seen: set[int] = set()
    out = {}
    for name, value in tensors.items():
        at = value.untyped_storage().data_ptr()
        out[name] = value.clone(memory_format=torch.contiguous_format) if at in seen else value.contiguous()
        seen.add(at)
    save_file(out, path, metadata={"format": "pt"})


def shards(index: Path) -> tuple[list[Path], set[str]]:
    """The files that an index names, each beside it, and the tensors that they should have."""
    if index.stat().st_size > JSON_MAX:
        raise Refused(f"'{index}' has more than {JSON_MAX} bytes")
    try:
        mapping = json.loads(index.read_bytes())["weight_map"]
        names, expected = sorted(set(mapping.values())), set(mapping)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Refused(f"'{index}' has no weight_map of names") from None
    if not names or len(names) > SHARDS_MAX:
        raise Refused(f"'{index}' names {len(names)} files")
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or name in (".", "..") or "\\" in name or "\0" in name:
            raise Refused(f"'{index}' names {name!r}, which is no file beside it")
        if not (index.parent / name).is_file():
            raise Refused(f"'{index}' names {name!r}, which is not there")
    return [index.parent / name for name in names], expected


def read_shards(index: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    files, expected = shards(index)
    for shard in files:
        part = read_one(shard)
        both = sorted(tensors.keys() & part.keys())
        if both:
            raise Refused(f"'{shard}' has '{both[0]}', which another part has too")
        tensors |= part
    missing = sorted(expected - tensors.keys())
    if missing:
        raise Refused(f"'{index}' names tensor '{missing[0]}', which no part has")
    return tensors


def weights_file(folder: Path) -> tuple[Path, str] | None:
    """The file (or index) with a folder's weights, safetensors first, and what to call the result."""
    for ending in (".safetensors", ".bin"):
        for stem, name in STEMS.items():
            for file in (folder / f"{stem}{ending}", folder / f"{stem}{ending}{INDEX}"):
                if file.is_file():
                    return file, f"{name}.safetensors"
    return None


def copy_settings(source: Path, target: Path) -> None:
    for file in sorted(source.iterdir()):
        if not file.is_file() or file.name.startswith(".") or file.name.endswith((*WEIGHTS, INDEX)):
            continue
        if file.stat().st_size > COPIED_MAX:
            raise Refused(f"'{file}' is no weights file that is known, and too large for settings")
        shutil.copyfile(file, target / file.name)


def convert_model(source: Path, target: Path, change: Change) -> list[str]:
    """Converts a model directory into an empty folder; returns the names of folders that had weights."""
    copy_settings(source, target)
    networks = []
    for folder in sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith(".")):
        convert_folder(folder, target / folder.name, change, networks)
    if not networks:
        raise Refused(f"'{source}' has no folder with weights")
    return networks


def convert_folder(folder: Path, target: Path, change: Change, networks: list[str]) -> None:
    target.mkdir()
    copy_settings(folder, target)
    found = weights_file(folder)
    if found is None:
        strangers = sorted(file.name for file in folder.iterdir() if file.name.endswith(WEIGHTS))
        if strangers:
            raise Refused(f"'{folder / strangers[0]}' is not called {', '.join(STEMS)} .safetensors or .bin")
        return
    file, name = found
    write(change(folder.name, read(file)), target / name)
    networks.append(folder.name)


def changes(kind: str | None, saturate: bool, merges: dict[str, dict[str, lora.Change]], scale: float) -> Change:
    """What happens to each network on its way: LoRA, then the number format."""
    def change(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        try:
            if name in merges:
                lora.merge(tensors, name, merges[name], scale)
            return converted(tensors, kind, saturate)
        except Refused as error:
            raise Refused(f"{name}: {error}") from None

    return change


def check_target(source: Path, target: Path, force: bool) -> None:
    inner, outer = target.resolve(), source.resolve()
    if outer in inner.parents or inner in outer.parents:
        raise Refused(f"'{target}' and '{source}' must not lie within each other")
    if not target.exists() and not target.is_symlink():
        return
    if not force:
        raise Refused(f"'{target}' exists; --force replaces it")
    if target.is_symlink() or (target.is_dir() and not (target / "model_index.json").is_file()):
        raise Refused(f"'{target}' is no model directory, so --force does not replace it")
    if target.is_dir() != source.is_dir():
        raise Refused(f"'{target}' and '{source}' must both be files or both be directories")


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to; takes its place at the end, or is removed with all in it."""
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        put_in_place(partial, target)
    finally:
        remove(partial)


def put_in_place(partial: Path, target: Path) -> None:
    if not target.is_dir():
        os.replace(partial, target)
        return
    old = target.with_name(f"{target.name}.old-{os.getpid()}")  # a folder with something in it can't be replaced at once
    os.rename(target, old)
    try:
        os.rename(partial, target)
    except OSError:
        os.rename(old, target)
        raise
    remove(old)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
