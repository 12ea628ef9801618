"""What ./bench/engine was told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    model: Path  # the folder of the random model
    programs: Path  # where bench-engine, bench-onednn and unclip are
    dtype: str
    batch: int | None
    threads: int
    repeat: int
    compile: bool
    profile: bool
    small: Path  # the shipped model
    pictures: int  # of the shipped model
    steps: tuple[int, int, int]
    environment: dict[str, str]

    def packed(self) -> Path:
        """Where the engine keeps packed weights: with the models, and deleted with them."""
        folder = self.model / "packed"
        folder.mkdir(exist_ok=True)
        return folder
