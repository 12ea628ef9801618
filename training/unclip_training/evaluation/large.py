# SPDX-License-Identifier: Apache-2.0
"""Crops of large pictures: the model's at 256 and 1024 pixels against renderings of the same scenes.

The judges see 64 pixels. A large picture is therefore judged by crops of 64 pixels without resizing, near what it
shows, at equal places of the made and the real picture: their kernel distance tells whether edges and areas look
like drawn ones, not whether the whole does (that is decided at 64 pixels).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..context import Context
from ..data.compositor import Scenes, on_device
from ..data.sprites import Atlas, open_atlas
from ..data.table import SceneTable
from ..stages.upsampler import corners
from . import metrics
from .judging import SEED, Judges, draw
from .pictures import SMALL, Draw
from .prompts import Prompts

CROPS = 8  # of each picture
CROP_SEED = 3001
HOST = torch.device("cpu")


def used_sprites(context: Context, table: SceneTable) -> tuple[list[str], SceneTable]:
    """The names of the sprites that scenes use, and the scenes with numbers among these."""
    names, used = list(context.world(context.concepts).sprites), np.unique(table.sprite[table.sprite >= 0])
    renumbered = np.where(table.sprite >= 0, np.searchsorted(used, table.sprite), -1).astype(np.int32)
    return [names[at] for at in used], replace(table, sprite=renumbered)


def open_large(context: Context, asked: Prompts) -> Scenes:
    """The scenes with their own sprites alone rendered at the preset's largest size."""
    names, table = used_sprites(context, asked.table)
    atlas = open_atlas(context.cache, names, context.preset.data.large_atlas, context.packages, context.processes)
    return on_device(table, [atlas], 1, HOST)


def scenes_at(context: Context, asked: Prompts, atlas: Atlas, size: int) -> Scenes:
    """The scenes, sharp at `size` pixels."""
    return open_large(context, asked) if size > atlas.size else on_device(asked.table, [atlas], 1, HOST)


def cut(pictures: Tensor, index: Tensor, corner: Tensor, side: int) -> Tensor:
    """Crops [n, 3, side, side] of pictures[index] with their left and top at `corner` [n, 2], fractions of a side."""
    places = (corner * pictures.shape[-1]).round().long().tolist()
    return torch.stack([
        pictures[at, :, top : top + side, left : left + side] for at, (left, top) in zip(index.tolist(), places, strict=True)
    ])


def kid(model: Draw, asked: Prompts, scenes: Scenes, size: int, judges: Judges) -> float | None:
    """Between crops of the model's pictures of `size` pixels and the same crops of renderings; a crop is SMALL wide."""
    index = torch.arange(len(asked)).repeat_interleave(CROPS)
    corner = corners(scenes, index, size, SMALL, torch.Generator().manual_seed(CROP_SEED))
    made = [cut(draw(model, [said[0]], SEED + at, 1, size), torch.zeros(CROPS, dtype=torch.long), places, SMALL)
            for at, (said, places) in enumerate(zip(asked.captions, corner.split(CROPS), strict=True))]
    real = scenes.draw(index, SMALL, corner, SMALL / size)
    return metrics.kid(judges.look(torch.cat(made)).features, judges.look(real).features, CROPS)
