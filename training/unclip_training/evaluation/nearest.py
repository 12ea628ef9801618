# SPDX-License-Identifier: Apache-2.0
"""Recognition without a trained judge: which icon's rendering is a picture closest to, and which colour is its border.

Both are coarse (16 x 16 means, three sizes) and strict about pose, but cost nothing and depend on no training.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..context import Context
from ..data.compositor import on_device
from ..data.scenes import COLOURS, Scene, Thing
from ..data.sprites import Atlas
from ..data.table import rows
from .prompts import Prompts

COARSE = 16
SIZES = (0.8, 0.86, 0.92)
BORDER = 3


def renderings(context: Context, atlas: Atlas, background: str, style: str) -> Tensor:
    """Each concept alone at each of SIZES, coarse: [sizes, concepts, 3 * COARSE * COARSE]."""
    world = context.world(context.concepts)
    scenes = [Scene("single", (Thing("icon", concept.code, style),), background) for concept in context.concepts]
    table = rows(scenes, [("", "")] * len(scenes), world, context.tokenizer, Random(0))
    found = []
    for size in SIZES:
        place = table.place.copy()
        place[:, 0] = 0.5, 0.5, size
        drawn = on_device(replace(table, place=place), [atlas], 1, torch.device("cpu"))
        found.append(functional.avg_pool2d(drawn.draw(torch.arange(len(scenes)), 64), 64 // COARSE).flatten(1))
    return torch.stack(found)


def borders(pictures: Tensor) -> list[str]:
    """The colour that the median of each picture's border is closest to."""
    inner = torch.zeros(pictures.shape[-2:], dtype=torch.bool)
    inner[BORDER:-BORDER, BORDER:-BORDER] = True
    median = pictures[:, :, ~inner].median(-1).values
    palette = torch.tensor(list(COLOURS.values())) / 127.5 - 1
    return [list(COLOURS)[at] for at in torch.cdist(median, palette).argmin(1).tolist()]


def nearest(context: Context, atlas: Atlas, asked: Prompts, pictures: Tensor) -> dict:
    """top1 and top5 among all concepts, rendered in the style and on the background that were asked for."""
    coarse = functional.avg_pool2d(pictures, 64 // COARSE).flatten(1)
    wanted = torch.from_numpy(asked.labels("first"))
    rank = torch.zeros(len(asked), dtype=torch.long)
    looks = {(scene.background, scene.things[0].style) for scene in asked.scenes}
    for background, style in sorted(looks):
        at = torch.tensor([
            i for i, scene in enumerate(asked.scenes) if (scene.background, scene.things[0].style) == (background, style)
        ])
        known = renderings(context, atlas, background, style)
        distance = torch.cdist(coarse[at], known).min(0).values
        own = distance.gather(1, wanted[at, None])
        rank[at] = (distance < own).sum(1)
    right = np.array([scene.background == border for scene, border in zip(asked.scenes, borders(pictures), strict=True)])
    return {
        "nearest_top1": round(float((rank == 0).float().mean()), 4),
        "nearest_top5": round(float((rank < 5).float().mean()), 4), "border_colour": round(float(right.mean()), 4),
    }
