# SPDX-License-Identifier: Apache-2.0
"""A small world without any download: five concepts, and an atlas of plain squares."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unclip_training.data.icons import Concept  # noqa: E402
from unclip_training.data.scenes import Mix  # noqa: E402
from unclip_training.data.sprites import Atlas, sprite_names, with_mips  # noqa: E402
from unclip_training.data.table import World  # noqa: E402
from unclip_training.tokenizer import Tokenizer, train  # noqa: E402

STYLES = ("fluent", "noto")


@pytest.fixture(scope="session")
def concepts() -> tuple[Concept, ...]:
    rows = (
        ("1f408", "cat", "猫", "animal-mammal", ("kitty",)), ("1f355", "pizza", "披萨", "food-prepared", ()),
        ("1f34e", "red apple", "红苹果", "food-fruit", ()), ("1f347", "grapes", "葡萄", "food-fruit", ()),
        ("1f98a", "fox", "狐狸", "animal-mammal", ()),
    )
    return tuple(Concept(code, english, chinese, group, words, ()) for code, english, chinese, group, words in rows)


@pytest.fixture(scope="session")
def world(concepts: tuple[Concept, ...]) -> World:
    names = sprite_names(concepts, STYLES)
    return World(concepts, STYLES, Mix(), {name: at for at, name in enumerate(names)})


@pytest.fixture(scope="session")
def atlas(world: World) -> Atlas:
    """Each sprite an opaque white square that fills its middle half."""
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[8:24, 8:24] = 255
    names = list(world.sprites)
    return Atlas(names, 32, np.stack([with_mips(pixels)] * len(names)))


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train(["a red heart", "a cat left of a pizza", "红苹果在猫的左边", "三只猫"] * 4, merges=60, length=16)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
