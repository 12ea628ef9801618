"""Trains the small CLIP tokenizer of the test models: byte-level BPE on tokenizer_corpus.txt."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from tokenizers import Regex, normalizers, pre_tokenizers

CORPUS = Path(__file__).parent / "tokenizer_corpus.txt"
MERGES = 1000
BOS, EOS = "<|startoftext|>", "<|endoftext|>"

Word = tuple[str, ...]
Pair = tuple[str, str]


def bytes_to_unicode() -> dict[int, str]:
    """The characters that stand for bytes in vocab.json (as in GPT-2 and CLIP)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {byte: chr(byte) for byte in printable}
    return table | {byte: chr(256 + index) for index, byte in enumerate(others)}


def words(text: str) -> Counter[Word]:
    """The pieces of CLIP's pattern as byte characters, the last one marked as the end of its word."""
    normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    pattern = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    split = pre_tokenizers.Split(pattern, behavior="removed", invert=True)
    encode = bytes_to_unicode()
    counts: Counter[Word] = Counter()
    for piece, _ in split.pre_tokenize_str(normalizer.normalize_str(text)):
        *head, last = (encode[byte] for byte in piece.encode())
        counts[(*head, last + "</w>")] += 1
    return counts


def pairs(counts: Counter[Word]) -> Counter[Pair]:
    found: Counter[Pair] = Counter()
    for word, count in counts.items():
        for pair in zip(word, word[1:]):
            found[pair] += count
    return found


def merge(word: Word, pair: Pair) -> Word:
    out: list[str] = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)


def train(text: str) -> list[Pair]:
    """The commonest pair first; among equals the first in code point order."""
    counts = words(text)
    merges = []
    for _ in range(MERGES):
        found = pairs(counts)
        best = min(found, key=lambda pair: (-found[pair], pair))
        merges.append(best)
        merged: Counter[Word] = Counter()
        for word, count in counts.items():
            merged[merge(word, best)] += count
        counts = merged
    return merges


def vocabulary(merges: list[Pair]) -> dict[str, int]:
    """CLIP's order: bytes, bytes that end a word, merges, the two special tokens."""
    single = list(bytes_to_unicode().values())
    tokens = [*single, *(c + "</w>" for c in single), *("".join(pair) for pair in merges), BOS, EOS]
    return {token: index for index, token in enumerate(tokens)}


def write(folder: Path) -> None:
    """Writes vocab.json and merges.txt."""
    merges = train(CORPUS.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary(merges), ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
