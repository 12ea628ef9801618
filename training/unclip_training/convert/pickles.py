# SPDX-License-Identifier: Apache-2.0
"""Reads tensors of torch's files (.bin, .ckpt, .pt, .pth, .th; zip archives and the older sequence of pickles) without
running what they hold.

A pickle is a program that may call anything by name. Here a machine of our own runs it, which knows only what torch
writes: it has stand-ins that note dtype, place and shape of tensors, for the fifteen names that a table of tensors needs,
and any other name or instruction ends the reading. What it makes grows no faster than the program is long. Bytes are then
taken from the mapped file, each range checked. This is torch.load(weights_only=True) made stricter: that of torch before
2.10 can be led to write outside its memory (CVE-2026-24747), and the pinned torch is older.
"""

from __future__ import annotations

import io
import math
import mmap
import pickletools
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from . import Refused

PICKLE_MAX = 16 << 20  # bytes of the program; Karlo's largest has some 200 KB
STEPS_MAX = 5_000_000  # of the program; a tensor takes some thirty
COPIED_MAX = 4_000_000  # items that calls are given, in all
ARGUMENTS_MAX = 8  # of a call; _rebuild_tensor_v2 has seven
TENSORS_MAX = 100_000  # as in the engine
RANK_MAX = 6  # as in the engine
SHARING = 4  # tensors may take this many times the file's bytes: tied weights are written once and stand twice
LEGACY_MAGIC, LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001
STORAGES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32, "ShortStorage": torch.int16,
    "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}


class Inert:
    """What a pickle gets for a name: has no attributes that it could set."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Storage(Inert):
    dtype: torch.dtype
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class Found(Inert):
    """A tensor by its place in a storage; not checked yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Kind(Inert):
    dtype: torch.dtype


PLAIN = (str, int, float, type(None))


class Table(dict, Inert):
    """Stands for OrderedDict."""

    __slots__ = ()


def fill(table: dict, keys: list, values: list) -> dict:
    """Keys are plain ones: to hash a tuple is to walk through all that is in it."""
    for key, value in zip(keys, values, strict=True):
        if not isinstance(key, PLAIN):
            raise Refused("its pickle has a table whose keys are neither text nor numbers")
        table[key] = value
    return table


class MakeTable(Inert):
    __slots__ = ()

    def __call__(self, pairs: object = ()) -> Table:
        """Empty from torch; Python 2 gave the pairs."""
        each = pairs if isinstance(pairs, (list, tuple)) else [None]
        if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in each):
            raise Refused("its pickle makes a table of something else than pairs")
        fill(table := Table(), [key for key, _ in each], [value for _, value in each])
        return table


class MakeTensor(Inert):
    """Stands for torch._utils._rebuild_tensor and _rebuild_tensor_v2."""

    __slots__ = ()

    def __call__(self, storage: object, offset: object, shape: object, stride: object, *_: object) -> Found:
        lists = [value for value in (shape, stride) if isinstance(value, tuple)]
        if any(len(value) > RANK_MAX for value in lists):
            raise Refused(f"a tensor has {max(map(len, lists))} dimensions")
        numbers = [offset, *(item for value in lists for item in value)]
        if not isinstance(storage, Storage) or len(lists) != 2 or not all(is_count(number) for number in numbers):
            raise Refused("a tensor is described by something else than a storage and whole numbers")
        if len(shape) != len(stride):
            raise Refused(f"a tensor has {len(shape)} dimensions and {len(stride)} strides")
        return Found(storage, offset, shape, stride)


class Passed(Inert):
    """Stands for a function that gives back its first argument (a parameter's tensor) or all (torch.Size)."""

    __slots__ = ("whole",)

    def __init__(self, whole: bool) -> None:
        self.whole = whole

    def __call__(self, first: object, *_: object) -> object:
        return tuple(first) if self.whole and isinstance(first, (tuple, list)) else first


NAMES: dict[str, Inert] = {
    "collections.OrderedDict": MakeTable(),
    "torch._utils._rebuild_tensor": MakeTensor(),
    "torch._utils._rebuild_tensor_v2": MakeTensor(),
    "torch._utils._rebuild_parameter": Passed(whole=False),
    "torch.Size": Passed(whole=True),
    **{f"torch.{name}": Kind(dtype) for name, dtype in STORAGES.items()},
}


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


class Machine:
    """Runs one pickle. Nothing that it does takes longer than what the instruction brings or takes from the stack."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # stacks below the marks
        self.memo: dict[int, Any] = {}
        self.highest = 0  # number of what is remembered
        self.copied = 0
        self.storages: dict[str, torch.dtype] = {}

    def run(self, program: BinaryIO) -> Any:
        """What the program makes; leaves the file behind it."""
        for step, (opcode, argument, place) in enumerate(pickletools.genops(program)):
            if step >= STEPS_MAX or (place or 0) > PICKLE_MAX:
                raise Refused(f"its pickle has more than {STEPS_MAX} steps or {PICKLE_MAX} bytes")
            if opcode.name in LITERALS:
                self.stack.append(argument)
            elif opcode.name in INSTRUCTIONS:
                INSTRUCTIONS[opcode.name](self, argument)
            else:
                raise Refused(f"its pickle has the instruction {opcode.name}, which torch does not write; not run")
        return self.stack.pop()

    def marked(self) -> list[Any]:
        """What lies on the last mark, which goes."""
        items, self.stack = self.stack, self.outer.pop()
        return items

    def mark(self, _: object) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def put(self, number: int) -> None:
        if number > self.highest:
            raise Refused("its pickle numbers what it remembers out of order")
        self.highest = max(self.highest, number + 1)
        self.memo[number] = self.stack[-1]

    def get(self, number: int) -> None:
        self.stack.append(self.memo[number])

    def tuple_of(self, count: int) -> None:
        items = tuple(self.stack[len(self.stack) - count :])
        if len(items) != count:
            raise IndexError("nothing is there")
        self.stack[len(self.stack) - count :] = [items]

    def append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise TypeError("items are added to what is no list")
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], dict):
            raise TypeError("items are set in what is no table")
        fill(self.stack[-1], items[::2], items[1::2])

    def set_item(self, _: object) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def build(self, _: object) -> None:
        """A state is ignored: OrderedDict's `_metadata`, for one."""
        self.stack.pop()

    def name(self, text: str) -> None:
        module, _, name = text.partition(" ")
        self.find(module, name)

    def stacked_name(self, _: object) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a name is no text")
        self.find(module, name)

    def find(self, module: str, name: str) -> None:
        found = NAMES.get(f"{module}.{name}")
        if found is None:
            raise Refused(f"its pickle asks for {module[:100]}.{name[:100]}, which a table of tensors does not need; not run")
        self.stack.append(found)

    def call(self, _: object) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(arguments, tuple) or len(arguments) > ARGUMENTS_MAX or not callable(function):
            raise TypeError("a call of what can't be called so")
        self.copied += sum(len(value) for value in arguments if isinstance(value, (tuple, list, dict)))
        if self.copied > COPIED_MAX:
            raise Refused(f"its pickle copies more than {COPIED_MAX} items")
        self.stack.append(function(*arguments))

    def storage(self, _: object) -> None:
        pid = self.stack.pop()
        kind, key, count = (pid[1], pid[2], pid[4]) if isinstance(pid, tuple) and len(pid) in (5, 6) else (None, "", 0)
        if not isinstance(kind, Kind) or not isinstance(key, str) or not is_count(count):
            raise Refused("its pickle names a storage in an unknown way")
        if len(pid) == 6 and pid[5] is not None:
            raise Refused(f"storage '{key[:100]}' is a view of another one, as torch wrote before 0.4")
        if self.storages.setdefault(key, kind.dtype) != kind.dtype:
            raise Refused(f"storage '{key[:100]}' has two dtypes")
        self.stack.append(Storage(kind.dtype, key, count))


def pushed(make: Callable[[Machine], Any]) -> Callable[[Machine, Any], None]:
    """An instruction that lays what `make` makes on the stack, marked items having gone."""

    def instruction(machine: Machine, _: object) -> None:
        made = make(machine)
        machine.stack.append(made)

    return instruction


def table_from(items: list[Any]) -> dict:
    return fill({}, items[::2], items[1::2])


LITERALS = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
})
INSTRUCTIONS: dict[str, Callable[[Machine, Any], None]] = {
    "PROTO": lambda machine, _: None, "FRAME": lambda machine, _: None, "STOP": lambda machine, _: None,
    "NONE": pushed(lambda _: None), "NEWTRUE": pushed(lambda _: True), "NEWFALSE": pushed(lambda _: False),
    "EMPTY_LIST": pushed(lambda _: []), "EMPTY_TUPLE": pushed(lambda _: ()), "EMPTY_DICT": pushed(lambda _: {}),
    "MARK": Machine.mark, "LIST": pushed(Machine.marked), "TUPLE": pushed(lambda machine: tuple(machine.marked())),
    "DICT": pushed(lambda machine: table_from(machine.marked())),
    **{f"TUPLE{count}": lambda machine, _, count=count: machine.tuple_of(count) for count in (1, 2, 3)},
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.marked()),
    "SETITEM": Machine.set_item, "SETITEMS": lambda machine, _: machine.set_items(machine.marked()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine.put), "MEMOIZE": lambda machine, _: machine.put(machine.highest),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine.get),
    "GLOBAL": Machine.name, "STACK_GLOBAL": Machine.stacked_name, "REDUCE": Machine.call, "BUILD": Machine.build,
    "BINPERSID": Machine.storage,
}


def unpickle(file: BinaryIO) -> tuple[Any, dict[str, torch.dtype]]:
    """What one pickle makes, and the dtypes of the storages that it names; leaves the file behind it."""
    start = file.tell()
    program, machine = io.BytesIO(file.read(PICKLE_MAX + 1)), Machine()
    try:
        made = machine.run(program)
    except Refused:
        raise
    except Exception as error:  # damaged bytes raise anything at all
        raise Refused(f"its pickle is damaged ({type(error).__name__}: {str(error)[:120]})") from None
    file.seek(start + program.tell())
    return made, machine.storages


@dataclass(frozen=True, slots=True)
class Source:
    """What a file says, and where each storage's bytes are in the mapping."""

    content: Any
    places: Mapping[str, tuple[int, int]]  # storage's key to (first byte, bytes)
    mapping: mmap.mmap
    copies: dict[str, Tensor] = field(default_factory=dict)  # of storages that no tensor can lie in as they stand


def read_zip(file: BinaryIO, mapping: mmap.mmap) -> Source:
    try:
        archive = zipfile.ZipFile(file)
    except Exception as error:  # as with an unpickler
        raise Refused(f"is no whole zip archive: cut short? ({error})") from None
    entries = {entry.filename: entry for entry in archive.infolist()}
    if len(entries) != len(archive.infolist()):
        raise Refused("has two entries of one name")
    programs = [name for name in entries if name.split("/")[1:] == ["data.pkl"]]
    if len(programs) != 1:
        raise Refused("is a zip archive, but not one of torch: it has no data.pkl")
    root = programs[0].removesuffix("data.pkl")
    if root + "constants.pkl" in entries or any(name.startswith(root + "code/") for name in entries):
        raise Refused("is a TorchScript archive: a program, not a table of tensors")
    places = {name: place_of(entry, mapping) for name, entry in entries.items()}
    if root + "byteorder" in places and taken(mapping, places[root + "byteorder"]) != b"little":
        raise Refused("was written on a big-endian machine")
    if places[programs[0]][1] > PICKLE_MAX:
        raise Refused(f"its pickle has more than {PICKLE_MAX} bytes")
    content, _ = unpickle(io.BytesIO(taken(mapping, places[programs[0]])))
    data = root + "data/"
    return Source(content, {name.removeprefix(data): at for name, at in places.items() if name.startswith(data)}, mapping)


def taken(mapping: mmap.mmap, place: tuple[int, int]) -> bytes:
    return mapping[place[0] : place[0] + place[1]]


def place_of(entry: zipfile.ZipInfo, mapping: mmap.mmap) -> tuple[int, int]:
    """First byte and bytes of an entry. torch never compresses, so an entry is as large as it says."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise Refused(f"entry '{entry.filename[:100]}' is compressed, which torch never does")
    header = mapping[entry.header_offset : entry.header_offset + 30]
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise Refused(f"entry '{entry.filename[:100]}' has no header where the archive says")
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    first = entry.header_offset + 30 + lengths
    if first + entry.file_size > len(mapping):
        raise Refused(f"entry '{entry.filename[:100]}' goes beyond the end of the file: cut short?")
    return first, entry.file_size


def read_legacy(file: BinaryIO, mapping: mmap.mmap) -> Source:
    """Magic number, version, a description of the machine, the content, the storages' keys; then count and bytes of each."""
    if unpickle(file)[0] != LEGACY_MAGIC or unpickle(file)[0] != LEGACY_VERSION:
        raise Refused("is no file of torch")
    machine, _ = unpickle(file)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise Refused("was written on a big-endian machine")
    content, dtypes = unpickle(file)
    keys, _ = unpickle(file)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Refused("its list of storages is damaged")
    places, place = {}, file.tell()
    for key in keys:
        count = int.from_bytes(mapping[place : place + 8], "little")
        if key not in dtypes:
            raise Refused(f"storage '{key[:100]}' belongs to no tensor")
        size = dtypes[key].itemsize
        if count > len(mapping) or place + 8 + count * size > len(mapping):
            raise Refused("a storage goes beyond the end of the file: cut short?")
        places[key] = (place + 8, count * size)
        place += 8 + count * size
    return Source(content, places, mapping)


def as_list(value: object) -> list:
    return list(value) if isinstance(value, (list, tuple)) else []


def tensor_of(name: str, found: Found, source: Source) -> Tensor:
    storage = found.storage
    first, size = source.places.get(storage.key, (0, -1))
    itemsize = storage.dtype.itemsize
    if size != storage.count * itemsize:
        there = "is not there" if size < 0 else f"has {size} bytes"
        raise Refused(f"tensor '{name}': its storage of {storage.count} {short(storage.dtype)} {there}")
    if math.prod(found.shape) == 0:
        return torch.empty(found.shape, dtype=storage.dtype)
    last = found.offset + sum((length - 1) * step for length, step in zip(found.shape, found.stride))
    if last >= storage.count:
        raise Refused(f"tensor '{name}' of shape {list(found.shape)} reaches beyond its storage of {storage.count}")
    if first % itemsize:
        if storage.key not in source.copies:
            content = bytearray(taken(source.mapping, (first, size)))
            source.copies[storage.key] = torch.frombuffer(content, dtype=storage.dtype)
        flat = source.copies[storage.key]
    else:
        flat = torch.frombuffer(source.mapping, dtype=storage.dtype, count=storage.count, offset=first)
    return flat.as_strided(found.shape, found.stride, found.offset)


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def opened(path: Path) -> Source:
    with path.open("rb") as file:
        head = file.read(4)
        if len(head) < 4:
            raise Refused("is empty")
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # private: nothing reaches the file
        file.seek(0)
        return read_zip(file, mapping) if head[:2] == b"PK" else read_legacy(file, mapping)


def table_of(content: object) -> dict[str, Found]:
    """Names to tensors: the content itself, or its `state_dict`."""
    inner = content.get("state_dict", content) if isinstance(content, dict) else None
    table = {name: value for name, value in (inner or {}).items() if isinstance(value, Found)} if isinstance(inner, dict) else {}
    if not table:
        names = ", ".join(f"'{str(key)[:40]}'" for key in list(content)[:5]) if isinstance(content, dict) else ""
        raise Refused("holds no table of tensors" + (f"; it has {names}" if names else ""))
    if not all(isinstance(name, str) for name in table):
        raise Refused("has a tensor whose name is no text")
    return table


def check_size(found: list[Found], source: Source) -> None:
    if len(found) > TENSORS_MAX:
        raise Refused(f"holds {len(found)} tensors, more than {TENSORS_MAX}")
    total = sum(math.prod(value.shape) * value.storage.dtype.itemsize for value in found)
    if total > SHARING * len(source.mapping):
        raise Refused(f"its tensors would take {total} bytes, the file has {len(source.mapping)}")


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Whatever is wrong with a file is said in one line that names it."""
    try:
        yield
    except OSError:
        raise
    except Refused as error:
        raise Refused(f"'{path}': {error}") from None
    except Exception as error:  # what a damaged file led to
        raise Refused(f"'{path}': is damaged ({type(error).__name__}: {str(error)[:120]})") from None


def load(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of torch, by name, in its order. They lie in the mapped file until they are copied."""
    with told(path):
        source = opened(path)
        table = table_of(source.content)
        check_size(list(table.values()), source)
        return {name: tensor_of(name, found, source) for name, found in table.items()}


def load_list(path: Path, count: int) -> list[Tensor]:
    """A file that holds a list of `count` tensors."""
    with told(path):
        source = opened(path)
        found = as_list(source.content)
        if len(found) != count or not all(isinstance(value, Found) for value in found):
            raise Refused(f"is no list of {count} tensors")
        check_size(found, source)
        return [tensor_of(str(at), value, source) for at, value in enumerate(found)]
