# SPDX-License-Identifier: Apache-2.0
"""A person's own pictures and captions: a folder or WebDataset shards (*.tar).

In a folder a picture's captions stand in the text file beside it (cat.png with cat.txt), in a json file's `caption`, or
in a table (metadata.jsonl, metadata.csv or captions.csv with file_name and text, as Hugging Face's imagefolder has it).
A text file holds one caption a line; where there are several, any of them may stand for the picture. Pictures are
cropped to a square in the middle, laid on white where they are transparent, and kept at every training size in
memory-mapped arrays. What can't be used is an error (`DataError`), not left out: pictures of other kinds, captions
without a picture, and what a table names that is not there. Shards aren't compressed. One picture at a time is held as it
is encoded.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from ..tokenizer import Tokenizer

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
OTHERS = frozenset({
    ".heic", ".heif", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jxl", ".jfif", ".jp2", ".ico", ".tga", ".svg", ".psd", ".raw", ".dng",
})  # pictures that are not read
TABLES = ("metadata.jsonl", "metadata.csv", "captions.csv")
CAPTIONS = 2  # kept of each picture, as a scene has one in each of two languages
MAX_PIXELS = 1 << 26
MAX_BYTES = 1 << 28  # of a picture as encoded
MAX_TEXT = 1 << 20  # bytes of a picture's captions
MAX_TABLE = 1 << 28
NAMED = 5  # of many faults of a kind, as many are named
READ = 2  # of how pictures are read: another number, and what is kept of them is made anew


class DataError(ValueError):
    """Pictures or captions that can't be used; the text is for the person whose they are."""


@dataclass(frozen=True)
class Picture:
    """Where an encoded picture lies: in a file, from `start` on."""

    file: Path
    size: int
    start: int = 0

    def read(self) -> bytes:
        with self.file.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)


def content_of(path: Path, limit: int) -> bytes:
    """A file that may hold no more than `limit` bytes."""
    try:
        check_size(str(path), path.stat().st_size, limit)
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {os.strerror(error.errno or errno.EIO)}") from None


def check_size(name: str, size: int, limit: int) -> int:
    if size > limit:
        raise DataError(f"'{name}' has {size} bytes, more than {limit}")
    return size


@dataclass
class Sample:
    name: str
    picture: Picture | None = None
    captions: list[str] = field(default_factory=list)

    def add(self, file: str, content: bytes) -> None:
        """Takes the captions of one of a sample's files."""
        suffix = PurePosixPath(file).suffix.lower()
        if suffix == ".txt":
            self.captions = [line.strip() for line in text_of(file, content).splitlines() if line.strip()]
        elif suffix == ".json" and not self.captions:
            found = parsed(file, text_of(file, content))
            caption = found.get("caption") if isinstance(found, dict) else None
            self.captions = [caption.strip()] if isinstance(caption, str) and caption.strip() else []


def text_of(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"'{name}' is not text in UTF-8") from None


def parsed(name: str, text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{name}' is not JSON: {error}") from None


def some(names: Iterable[str]) -> str:
    """The first few names, and how many there are beside."""
    found = list(names)
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(found[:NAMED]) + more


def records_of(table: Path) -> Iterator[tuple[int, object]]:
    """The lines of a table, with their numbers."""
    text = text_of(str(table), content_of(table, MAX_TABLE))
    if table.suffix == ".csv":
        try:
            yield from enumerate(csv.DictReader(io.StringIO(text), strict=True), 2)
        except csv.Error as error:
            raise DataError(f"'{table}' is no table: {error}") from None
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, parsed(f"{table}, line {number}", line)


def captions_in(table: Path) -> dict[Path, list[str]]:
    """What a table says of the pictures beside and below it."""
    said: dict[Path, list[str]] = {}
    for number, record in records_of(table):
        fields = record if isinstance(record, dict) else {}
        name, text = fields.get("file_name"), fields.get("text")
        if not (isinstance(name, str) and name and isinstance(text, str) and text.strip()):
            raise DataError(f"'{table}', line {number}, lacks a file_name or its text")
        said.setdefault(table.parent / name, []).append(text.strip())
    return said


def folder_samples(folder: Path) -> Iterator[Sample]:
    """In the order of names, hidden files aside; a shard's samples stand in its place."""
    files = sorted(file for file in folder.rglob("*") if not is_hidden(file, folder) and not file.is_dir())
    if broken := [str(file) for file in files if not file.is_file()]:
        raise DataError(f"links that lead nowhere, or no files: {some(broken)}")
    said = said_by_tables(files)
    beside: dict[Path, list[Path]] = {}
    for file in files:
        if file.suffix.lower() in (".txt", ".json"):
            beside.setdefault(file.with_suffix(""), []).append(file)
    refuse_others(files, beside)
    for file in files:
        if file.suffix == ".tar":
            yield from shard_samples(file)
        elif file.suffix.lower() in SUFFIXES:
            picture = Picture(file, check_size(str(file), file.stat().st_size, MAX_BYTES))
            sample = Sample(str(file), picture, said.get(file, []))
            for other in () if sample.captions else sorted(beside.get(file.with_suffix(""), []), reverse=True):
                sample.add(str(other), content_of(other, MAX_TEXT))
            yield sample


def is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def said_by_tables(files: list[Path]) -> dict[Path, list[str]]:
    """All that tables say; each picture that they name is among the files."""
    found: dict[Path, list[str]] = {}
    there = {file for file in files if file.suffix.lower() in SUFFIXES}
    for table in (file for file in files if file.name in TABLES):
        said = captions_in(table)
        missing = [str(path.relative_to(table.parent)) for path in said if path not in there]
        if missing:
            raise DataError(
                f"'{table}' names pictures that are not there (beside or below it, none hidden, {', '.join(sorted(SUFFIXES))}): "
                f"{some(missing)}"
            )
        found |= said
    return found


def refuse_others(files: list[Path], beside: dict[Path, list[Path]]) -> None:
    """Pictures of kinds that are not read, and captions of none."""
    if others := [str(file) for file in files if file.suffix.lower() in OTHERS]:
        raise DataError(f"{len(others)} pictures are of kinds that are not read ({', '.join(sorted(SUFFIXES))} are): {some(others)}")
    pictures = {file.with_suffix("") for file in files if file.suffix.lower() in SUFFIXES}
    alone = [str(file) for stem, texts in beside.items() if stem not in pictures for file in texts if file.suffix.lower() == ".txt"]
    if alone:
        raise DataError(f"{len(alone)} captions have no picture beside them: {some(alone)}")


def shard_samples(path: Path) -> Iterator[Sample]:
    """Files of one sample stand next to each other and have one name up to the first dot, as in WebDataset."""
    sample = Sample("")
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                pure = PurePosixPath(f"{path}/{member.name}")
                if not member.isfile() or pure.name.startswith("."):
                    continue
                stem = str(pure.parent / pure.name.split(".")[0])
                if stem != sample.name:
                    yield from whole(sample)
                    sample = Sample(stem)
                take(sample, path, pure, shard, member)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"'{path}' is not a shard (an uncompressed tar): {error}") from None
    yield from whole(sample)


def take(sample: Sample, path: Path, pure: PurePosixPath, shard: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """A member of a shard that belongs to the sample; what else lies in shards (.cls, .npy) is not read."""
    suffix = pure.suffix.lower()
    if suffix in OTHERS:
        raise DataError(f"'{pure}' is a picture of a kind that is not read ({', '.join(sorted(SUFFIXES))} are)")
    if suffix in SUFFIXES:
        if member.issparse():
            raise DataError(f"'{pure}' is sparse")
        sample.picture = Picture(path, check_size(str(pure), member.size, MAX_BYTES), member.offset_data)
    elif suffix in (".txt", ".json"):
        check_size(str(pure), member.size, MAX_TEXT)
        content = shard.extractfile(member)
        assert content is not None
        sample.add(str(pure), content.read())


def whole(sample: Sample) -> Iterator[Sample]:
    if sample.picture:
        yield sample
    elif sample.captions:
        raise DataError(f"the captions of '{sample.name}' have no picture next to them")


def samples(paths: list[Path]) -> Iterator[Sample]:
    """All pictures with their captions, of which some may have none."""
    for path in paths:
        if not path.exists():
            raise DataError(f"'{path}' does not exist")
        yield from folder_samples(path) if path.is_dir() else shard_samples(path)


def usable(paths: list[Path]) -> list[Sample]:
    """The pictures, each with a caption."""
    found = list(samples(paths))
    places = ", ".join(f"'{path}'" for path in paths)
    if not found:
        raise DataError(f"no picture ({', '.join(sorted(SUFFIXES))}) is in {places}")
    silent = [sample.name for sample in found if not sample.captions]
    if silent:
        raise DataError(
            f"{len(silent)} of {len(found)} pictures have no caption: {some(silent)}; write it into a text file of the "
            f"same name (cat.png, cat.txt) or into metadata.jsonl"
        )
    return found


def report_cuts(found: list[Sample], tokenizer: Tokenizer, log: Callable[[str], None]) -> None:
    """Says which captions are longer than the text encoder reads, and what of them is lost."""
    room, cuts = tokenizer.length - 2, list[str]()
    for sample in found:
        for caption in sample.captions[:CAPTIONS]:
            encoding = tokenizer.engine.encode(caption)
            if len(encoding.ids) > room:
                cuts.append(f"{Path(sample.name).name}: '{caption[encoding.offsets[room][0]:].strip()}'")
    if cuts:
        log(f"{len(cuts)} captions are longer than {room} tokens, and their ends are lost: {some(cuts)}")


def squared(encoded: bytes, size: int) -> np.ndarray:
    """uint8 [size, size, 3]."""
    with Image.open(io.BytesIO(encoded)) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{opened.width} x {opened.height} is too large")
        picture = ImageOps.exif_transpose(opened).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    picture = Image.alpha_composite(white, picture).convert("RGB")
    return np.asarray(ImageOps.fit(picture, (size, size), Image.Resampling.BOX if picture.width > size else Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class Pictures:
    tokens: Tensor  # int16 or int32 [n, CAPTIONS, length]
    meaning: Tensor  # int64 [n]: equal where the captions are
    levels: dict[int, Tensor]  # by side: uint8 [n, side, side, 3]
    key: str = ""  # names the files, the tokenizer and the sizes that these were made from
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


def facts(path: Path) -> tuple[int, int]:
    """Size and time; of a link that leads nowhere its own."""
    found = path.stat() if path.exists() else path.lstat()
    return found.st_size, found.st_mtime_ns


def open_pictures(
    paths: list[Path], folder: Path, tokenizer: Tokenizer, sizes: tuple[int, ...], device: torch.device,
    log: Callable[[str], None] = print,
) -> Pictures:
    """The pictures at `sizes`, decoded on the first call and mapped from `folder` afterwards."""
    files = [[str(p), *facts(p)] for path in paths if path.exists() for p in sorted([path, *path.rglob("*")])]
    key = hashlib.sha256(json.dumps([files, tokenizer.fingerprint, sizes, READ]).encode()).hexdigest()[:16]
    path = folder / f"pictures-{key}"
    if not path.exists():
        write_pictures(path, paths, tokenizer, sizes, log)
    load = {name: torch.from_numpy(np.load(path / f"{name}.npy")).to(device) for name in ("tokens", "meaning")}
    levels = {side: mapped(path / f"{side}.npy").to(device) for side in sizes}
    return Pictures(load["tokens"], load["meaning"], levels, key)


def mapped(path: Path) -> Tensor:
    """An array that stays on the disk until it is looked at; nothing reaches the file."""
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def write_pictures(path: Path, paths: list[Path], tokenizer: Tokenizer, sizes: tuple[int, ...], log: Callable[[str], None]) -> None:
    found = usable(paths)
    report_cuts(found, tokenizer, log)
    partial = path.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    said = [[sample.captions[at % len(sample.captions)] for at in range(CAPTIONS)] for sample in found]
    np.save(partial / "tokens.npy", np.stack([tokenizer.encode([s[at] for s in said]) for at in range(CAPTIONS)], axis=1))
    digests = [hashlib.blake2b("\n".join(sample.captions).encode(), digest_size=8).digest() for sample in found]
    np.save(partial / "meaning.npy", np.array([int.from_bytes(d, "little", signed=True) for d in digests], np.int64))
    write_levels(partial, found, sizes)
    os.replace(partial, path)


def write_levels(folder: Path, found: list[Sample], sizes: tuple[int, ...]) -> None:
    """One array a size; pictures that can't be read are told all at once."""
    arrays = [np.lib.format.open_memmap(folder / f"{side}.npy", "w+", np.uint8, (len(found), side, side, 3)) for side in sizes]
    faults = []
    for at, sample in enumerate(found):
        try:
            encoded = sample.picture.read() if sample.picture else b""
            for array, side in zip(arrays, sizes, strict=True):
                array[at] = squared(encoded, side)
        except UnidentifiedImageError:
            faults.append(f"{sample.name} (no picture of a known format)")
        except Exception as error:  # Pillow raises anything at all on damaged bytes, SyntaxError among others
            faults.append(f"{sample.name} ({error})")
    if faults:
        raise DataError(f"{len(faults)} of {len(found)} pictures cannot be read: {some(faults)}")
    for array in arrays:
        array.flush()
