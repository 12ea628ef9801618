# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from unclip_training.data.compositor import Scenes, on_device
from unclip_training.data.pictures import DataError, open_pictures, samples
from unclip_training.data.scenes import COLOURS, GROUP, Scene, Thing
from unclip_training.data.sprites import MIN_LEVEL, Atlas, levels
from unclip_training.data.table import World, open_table, rows
from unclip_training.tokenizer import Tokenizer, load

CPU = torch.device("cpu")


def scenes_of(world: World, atlas: Atlas, tokenizer: Tokenizer, *scenes: Scene) -> Scenes:
    table = rows(list(scenes), [("a", "b")] * len(scenes), world, tokenizer, Random(0))
    return on_device(table, [atlas], 1, CPU)


def test_a_table_is_the_same_again_and_from_the_cache(world: World, tokenizer: Tokenizer, tmp_path: Path) -> None:
    first = open_table(tmp_path / "a", world, tokenizer, seed=3, count=50)
    again = open_table(tmp_path / "a", world, tokenizer, seed=3, count=50)
    other = open_table(tmp_path / "b", world, tokenizer, seed=3, count=50, processes=2)
    assert len(first) == 52 and len(first) % GROUP == 0
    for name in first.__dataclass_fields__:
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert np.array_equal(getattr(first, name), getattr(other, name))


def test_a_square_in_its_colour_on_its_background(world: World, atlas: Atlas, tokenizer: Tokenizer) -> None:
    scene = Scene("single", (Thing("shape", "square", colour="red"),), "blue")
    picture = scenes_of(world, atlas, tokenizer, scene).draw(torch.tensor([0]), 32)[0]
    for (x, y), name in (((16, 16), "red"), ((0, 0), "blue"), ((31, 31), "blue")):
        expected = torch.tensor(COLOURS[name]) / 127.5 - 1
        assert torch.allclose(picture[:, y, x], expected, atol=0.01), name


def test_a_window_shows_what_the_whole_shows(world: World, atlas: Atlas, tokenizer: Tokenizer) -> None:
    scene = Scene("count", (Thing("icon", "1f408", "fluent"),), "green", count=3)
    drawn = scenes_of(world, atlas, tokenizer, scene)
    whole = drawn.draw(torch.tensor([0]), 64)
    corner = torch.tensor([[0.25, 0.5]])
    assert torch.allclose(drawn.draw(torch.tensor([0]), 16, corner, 0.25), whole[:, :, 32:48, 16:32], atol=0.02)


def test_levels_go_down_to_the_smallest() -> None:
    assert levels(128) == [128, 64, 32, MIN_LEVEL]


def encoded(colour: str, size: tuple[int, int] = (80, 64)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "00000.tar"
    files = {"000.png": encoded("red"), "000.txt": "red\n红".encode(), "001.json": b'{"caption": "blue"}', "001.png": encoded("blue")}
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_a_shard_and_a_folder_are_read_alike(shard: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with tarfile.open(shard) as tar:
        tar.extractall(folder, filter="data")
    found = [[(sample.picture.read(), sample.captions) for sample in samples([path])] for path in (shard, folder)]
    assert found[0] == found[1] == [(encoded("red"), ["red", "红"]), (encoded("blue"), ["blue"])]


def test_pictures_are_squared_and_cropped(shard: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    pictures = open_pictures([shard], tmp_path / "cache", tokenizer, (16, 64), CPU)
    assert len(pictures) == 2 and pictures.tokens.shape == (2, 2, tokenizer.length)
    red = torch.tensor([1.0, -1.0, -1.0])[:, None, None]
    assert torch.equal(pictures.draw(torch.tensor([0]), 64)[0], red.expand(3, 64, 64))
    corner = torch.tensor([[0.25, 0.25]])
    assert pictures.draw(torch.tensor([1]), 32, corner, 0.5).shape == (1, 3, 32, 32)
    assert pictures.draw(torch.tensor([1]), 8).shape == (1, 3, 8, 8)


def test_a_shard_that_cannot_be_used_is_told(shard: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "small.tar.gz", "w:gz") as packed:
        packed.add(shard, "0.tar")
    (tmp_path / "small.tar.gz").rename(tmp_path / "small.tar")
    (tmp_path / "cut.tar").write_bytes(shard.read_bytes()[:700])
    for name, members, message in (
        ("small", None, "is not a shard"), ("cut", None, "is not a shard"), ("alone", {"0.txt": b"a cat"}, "have no picture"),
        ("gif", {"0.gif": b"GIF89a", "0.txt": b"a cat"}, "of a kind that is not read"),
    ):
        if members:
            with tarfile.open(tmp_path / f"{name}.tar", "w") as out:
                for file, content in members.items():
                    entry = tarfile.TarInfo(file)
                    entry.size = len(content)
                    out.addfile(entry, io.BytesIO(content))
        with pytest.raises(DataError, match=message):
            list(samples([tmp_path / f"{name}.tar"]))


def test_no_pictures_is_an_error(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="no picture"):
        open_pictures([tmp_path], tmp_path / "cache", tokenizer, (16,), CPU)


def test_the_tokenizer_is_transformers_fast_one(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import CLIPTokenizerFast

    tokenizer.save(tmp_path)
    assert load(tmp_path) == tokenizer
    fast = CLIPTokenizerFast.from_pretrained(tmp_path)
    texts = ["a RED  heart", "红苹果 左边", "can't İ ΑΣ 12 🙂", "", "a cat " * 20]
    expected = fast(texts, padding="max_length", max_length=tokenizer.length, truncation=True, return_tensors="np").input_ids
    assert np.array_equal(tokenizer.encode(texts), expected)


def test_a_vocabulary_in_another_order_keeps_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    turned = {token: len(tokenizer.vocabulary) - 1 - at for token, at in tokenizer.vocabulary.items()}
    (tmp_path / "vocab.json").write_text(json.dumps(turned))
    assert load(tmp_path).vocabulary == turned
    assert load(tmp_path).encode(["a cat"])[0, 0] == turned["<|startoftext|>"]
