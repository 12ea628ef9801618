# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from unclip_training.data.table import World
from unclip_training.drawing import Engine
from unclip_training.evaluation.pictures import Through, as_images
from unclip_training.examples.before_and_after import PROMPTS, compare
from unclip_training.examples.fifty_pictures import THINGS
from unclip_training.gallery import REMARKS, choose, draw_gallery

STAND_IN = """#!/bin/bash
# draws nothing: copies a plain picture of the size that was asked for, and notes what that was
while (($#)); do
  case $1 in
  --size) size=$2; shift ;;
  --out) out=$2; shift ;;
  --seed) seed=$2; shift ;;
  --) prompt=$2; shift ;;
  esac
  shift
done
[[ $prompt != fail ]] || { echo "out of paint" >&2; exit 1; }
echo "$size $seed $prompt" >>"${0%/*}/asked"
cp "${0%/*}/$size.png" "$out/0.png"
"""


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    command = tmp_path / "unclip"
    command.write_text(STAND_IN)
    command.chmod(0o755)
    for size in (64, 1024):
        Image.new("RGB", (size, size), "teal").save(tmp_path / f"{size}.png")
    weights = tmp_path / "model" / "decoder"
    weights.mkdir(parents=True)
    (weights / "model.safetensors").write_bytes(b"one")
    return Engine(command, tmp_path / "model")


def test_prompts_are_the_same_again_and_of_all_kinds(world: World) -> None:
    prompts = choose(world, 16)
    assert len(prompts) == 16 and prompts == choose(world, 16)
    assert len({prompt.kind for prompt in prompts}) >= 6
    assert all(prompt.text.isascii() is (at % 2 == 0) for at, prompt in enumerate(prompts) if prompt.kind == "seen")
    assert [prompt.seed for prompt in prompts] == list(range(2001, 2001 + len(prompts))) and any(prompt.held_out for prompt in prompts)


def test_the_page_shows_what_was_asked_for(world: World, engine: Engine, tmp_path: Path) -> None:
    prompts = [replace(prompt, text=f"{prompt.text} {at}") for at, prompt in enumerate(3 * choose(world, 8))]
    draw_gallery(engine, prompts, 3, tmp_path / "docs")
    asked = (tmp_path / "asked").read_text().splitlines()
    large = [prompts[at] for at in (0, 8, 16)]
    assert asked == [f"64 {p.seed} {p.text}" for p in prompts] + [f"1024 {p.seed} {p.text}" for p in large]
    images = tmp_path / "docs" / "images"
    sizes = {path.name: Image.open(path).size for path in images.iterdir()}
    assert sizes == {"gallery-64.png": (658, 196), "gallery-1024.webp": (772, 256), "gallery-full.webp": (1024, 1024)}
    text = (tmp_path / "docs" / "gallery.md").read_text()
    assert all(prompt.text in text for prompt in prompts)
    assert all(f"images/{name}" in text for name in sizes)


def test_remarks_stay_as_long_as_the_weights(
    world: World, engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, prompts = tmp_path / "docs" / "gallery.md", choose(world, 2)
    draw_gallery(engine, prompts, 1, tmp_path / "docs")
    with page.open("a") as file:
        file.write(f"\n{REMARKS}\n\nAll is teal.\n")
    written = page.read_text()
    draw_gallery(engine, prompts, 1, tmp_path / "docs")
    assert page.read_text() == written
    (engine.model / "decoder" / "model.safetensors").write_bytes(b"two")
    draw_gallery(engine, prompts, 1, tmp_path / "docs")
    assert "teal" not in page.read_text() and "are dropped" in capsys.readouterr().err


def test_a_picture_that_fails_stops_the_gallery(engine: Engine, world: World, tmp_path: Path) -> None:
    prompts = [replace(prompt, text="fail") for prompt in choose(world, 2)]
    with pytest.raises(SystemExit, match="'fail' was not drawn: out of paint"):
        draw_gallery(engine, prompts, 1, tmp_path / "docs")
    assert not (tmp_path / "docs").exists()


def test_the_evaluation_draws_through_the_same_command(engine: Engine, tmp_path: Path) -> None:
    found = Through(engine)(["a cat", "--dog"], 5)
    assert (tmp_path / "asked").read_text().splitlines() == ["64 5 a cat", "64 6 --dog"]
    assert found.shape == (2, 3, 64, 64) and as_images(found)[0].getpixel((3, 3)) == (0, 128, 128)


def test_before_and_after_are_asked_the_same(engine: Engine, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    shown = [name for name in PROMPTS.values() if name]
    assert shown and set(shown) <= THINGS.keys() and all(text in THINGS[name] for text, name in PROMPTS.items() if name)
    for name in shown:
        Image.new("RGB", (512, 512), "red").save(own / f"{name}.png")
    found = compare([engine, engine], own)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[:12] == asked[12:] == [f"64 {1 + at} {text}" for at, text in enumerate(PROMPTS)]
    assert found.size == (12 * 66 - 2, 3 * 66 - 2)
    assert found.getpixel((10, 10)) == (255, 0, 0) and found.getpixel((10, 76)) == found.getpixel((10, 142)) == (0, 128, 128)
