# SPDX-License-Identifier: Apache-2.0
"""Writes the folder of docs/fine-tuning.md: fifty pictures with captions in two languages, of things that the emoji
scenes of the tiny preset don't show, drawn by FxEmoji (Mozilla, Apache-2.0).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.fetch import TRAINING, fetch
from ..data.icons import document, load
from ..data.sprites import render_svg

SIZE = 512
THINGS = {  # icon to its captions
    "camera": ("a camera", "照相机"), "crown": ("a crown", "皇冠"), "gem": ("a gem stone", "宝石"),
    "ghost": ("a ghost", "鬼"), "key": ("a key", "钥匙"), "alarmclock": ("an alarm clock", "闹钟"),
    "lightbulb": ("a light bulb", "灯泡"), "bluebook": ("a blue book", "蓝色的书"), "blackscissors": ("scissors", "剪刀"),
    "hammer": ("a hammer", "锤子"), "wrench": ("a wrench", "扳手"), "tophat": ("a top hat", "礼帽"),
    "balloon": ("a balloon", "气球"), "present": ("a wrapped gift", "礼物"), "bell": ("a bell", "铃铛"),
    "bomb": ("a bomb", "炸弹"), "alien": ("an alien", "外星人"), "skull": ("a skull", "头骨"),
    "lock": ("a locked padlock", "挂锁"), "television": ("a television", "电视机"), "watch": ("a wrist watch", "手表"),
    "glasses": ("glasses", "眼镜"), "handbag": ("a handbag", "手提包"), "boot": ("a boot", "靴子"),
    "heels": ("a high-heeled shoe", "高跟鞋"), "jeans": ("jeans", "牛仔裤"), "dress": ("a dress", "连衣裙"),
    "trophy": ("a trophy", "奖杯"), "candle": ("a candle", "蜡烛"), "acorn": ("an acorn", "橡果"),
    "envelope": ("an envelope", "信封"), "hourglass": ("an hourglass", "沙漏"),
    "christmastree": ("a Christmas tree", "圣诞树"), "jackolantern": ("a jack-o-lantern", "南瓜灯"),
    "housebuilding": ("a house", "房子"), "europeancastle": ("a castle", "城堡"), "telescope": ("a telescope", "望远镜"),
    "microscope": ("a microscope", "显微镜"), "door": ("a door", "门"),
    "leftmagnifyingglass": ("a magnifying glass", "放大镜"), "pencil": ("a pencil", "铅笔"),
    "headphone": ("headphones", "耳机"), "radio": ("a radio", "收音机"), "battery": ("a battery", "电池"),
    "crystalball": ("a crystal ball", "水晶球"), "ring": ("a ring with a gem", "戒指"), "lipstick": ("a lipstick", "口红"),
    "pill": ("a pill", "药丸"), "artistpalette": ("an artist palette", "调色板"), "moneybag": ("a money bag", "钱袋"),
}


def on_white(pixels: np.ndarray) -> Image.Image:
    """Of premultiplied RGBA."""
    return Image.fromarray((pixels[..., :3].astype(np.int16) + 255 - pixels[..., 3:]).clip(0, 255).astype(np.uint8))


def write(folder: Path, packages: Path) -> None:
    source = packages / "@iconify-json" / "fxemoji" / "icons.json"
    if not source.is_file():
        raise SystemExit(
            f"fifty-pictures: '{source}' is not there. UNCLIP_TRAINING_PACKAGES names a folder without it: add the package "
            "of training/examples/package.json to that, or unset the variable where there is a network"
        )
    icons = load(source)
    assert isinstance(icons, dict)
    folder.mkdir(parents=True, exist_ok=True)
    for icon in THINGS:
        on_white(render_svg(document(icons, icon), SIZE)).save(folder / f"{icon}.png")
        (folder / f"{icon}.txt").write_text("\n".join(THINGS[icon]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="training/examples/fifty-pictures", description="Writes fifty captioned pictures.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where; made if it is missing")
    options = parser.parse_args()
    write(options.folder, fetch(TRAINING / "examples"))
    print(f"{options.folder}: {len(THINGS)} pictures with captions in two languages")
