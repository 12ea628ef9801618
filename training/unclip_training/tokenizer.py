# SPDX-License-Identifier: Apache-2.0
"""CLIP's tokenizer, trained on captions: byte-level BPE with CLIP's normalisation and word pattern.

The files it writes are CLIP's (vocab.json, merges.txt and two settings files). Encoding is by transformers' fast
CLIPTokenizer, to whose ids the engine's tokenizer is exact (tests/golden/README.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Engine
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
SUFFIX = "</w>"


def byte_characters() -> list[str]:
    """The characters that stand for bytes in vocab.json, in CLIP's order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(others)]


@dataclass(frozen=True)
class Tokenizer:
    merges: tuple[tuple[str, str], ...]
    length: int  # tokens of a caption, padding included
    tokens: tuple[str, ...] = ()  # by id; empty for CLIP's order

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """CLIP's order: bytes, bytes that end a word, merges, the two special tokens."""
        single = byte_characters()
        ordered = [*single, *(c + SUFFIX for c in single), *("".join(pair) for pair in self.merges), BEGIN, END]
        return {token: index for index, token in enumerate(self.tokens or ordered)}

    @cached_property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps([self.merges, self.length, self.tokens]).encode()).hexdigest()[:16]

    @property
    def begin(self) -> int:
        return self.vocabulary[BEGIN]

    @property
    def end(self) -> int:
        """The end token, which also fills up."""
        return self.vocabulary[END]

    @cached_property
    def engine(self) -> Engine:
        """The same pipeline as CLIPTokenizerFast's."""
        engine = Engine(BPE(self.vocabulary, list(self.merges), end_of_word_suffix=SUFFIX, unk_token=END))
        engine.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        engine.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(PATTERN), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        return engine

    def __getstate__(self) -> dict:
        return {"merges": self.merges, "length": self.length, "tokens": self.tokens}

    def encode(self, captions: list[str]) -> np.ndarray:
        """[captions, length]: begin, at most length - 2 tokens, end, and end again to fill up. int16 if all ids fit, else int32."""
        dtype = np.int16 if len(self.vocabulary) <= 1 << 15 else np.int32
        out = np.full((len(captions), self.length), self.end, dtype)
        out[:, 0] = self.begin
        for row, encoding in enumerate(self.engine.encode_batch(captions)):
            ids = encoding.ids[: self.length - 2]
            out[row, 1 : 1 + len(ids)] = ids
        return out

    def save(self, folder: Path) -> None:
        """Writes what CLIPTokenizer.from_pretrained reads."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocab.json").write_text(json.dumps(self.vocabulary, ensure_ascii=False))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in self.merges))
        plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
        special = {name: {"content": token, **plain} for name, token in (
            ("bos_token", BEGIN), ("eos_token", END), ("pad_token", END), ("unk_token", END))}
        (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
        settings = {
            "added_tokens_decoder": {
                str(self.vocabulary[token]): {"content": token, **plain, "special": True} for token in (BEGIN, END)
            },
            "bos_token": BEGIN, "clean_up_tokenization_spaces": False, "eos_token": END, "errors": "replace",
            "model_max_length": self.length, "pad_token": END, "tokenizer_class": "CLIPTokenizer", "unk_token": END,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def load(folder: Path) -> Tokenizer:
    lines = (folder / "merges.txt").read_text().splitlines()
    merges = tuple(tuple(line.split()) for line in lines if line and not line.startswith("#version"))
    length = json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"]
    vocabulary = json.loads((folder / "vocab.json").read_text())
    found = Tokenizer(merges, length)  # type: ignore[arg-type]
    return found if found.vocabulary == vocabulary else replace(found, tokens=tuple(sorted(vocabulary, key=vocabulary.get)))


def train(captions: Iterable[str], merges: int, length: int) -> Tokenizer:
    """The merges that captions' commonest pairs give."""
    empty = Tokenizer((), length).engine
    engine = Engine(BPE(unk_token=END))
    engine.normalizer, engine.pre_tokenizer = empty.normalizer, empty.pre_tokenizer
    trainer = BpeTrainer(
        vocab_size=512 + merges, initial_alphabet=byte_characters(), end_of_word_suffix=SUFFIX, show_progress=False
    )
    engine.train_from_iterator(captions, trainer)
    learnt = json.loads(engine.to_str())["model"]["merges"]
    pairs = (tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in learnt)
    return Tokenizer(tuple(pairs), length)  # type: ignore[arg-type]
