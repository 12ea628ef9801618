# SPDX-License-Identifier: Apache-2.0
"""A person's few pictures among emoji scenes, for fine-tuning: the new is learnt while the old is rehearsed.

Rows come in blocks of GROUP, each of pictures or of one group of scenes, spread so evenly that any first part of the
rows has the same share of both. A picture stands in many rows, each of which shows it a little shifted and scaled, so
that it isn't learnt by heart pixel by pixel. It is never flipped: captions say left and right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .compositor import Scenes
from .pictures import Pictures
from .scenes import GROUP

ROWS = 1 << 16  # at least: views of fifty pictures for hours
SCALE, SHIFT = 0.06, 0.04  # at most, of the side


@dataclass(frozen=True)
class Mixed:
    """Has what stages use of Scenes and Pictures. Indices are on the host, as theirs."""

    pictures: Pictures
    scenes: Scenes | None  # None where nothing is rehearsed
    own: Tensor  # bool [n]: whether a row is one of the pictures; on the host
    source: Tensor  # int64 [n]: its row there; on the host
    window: Tensor  # float [n, 3]: left, top and side of what a row shows of its picture; on the host
    tokens: Tensor  # int16 or int32 [n, captions, length]
    meaning: Tensor  # int64 [n]
    group: int = GROUP

    def __len__(self) -> int:
        return len(self.own)

    @property
    def device(self) -> torch.device:
        return self.tokens.device

    def parts(self, index: Tensor) -> Iterator[tuple[Pictures | Scenes, Tensor, Tensor]]:
        """The data that rows come from, with the places in `index` of those that do, and their rows there."""
        own = self.own[index]
        for data, places in ((self.pictures, own.nonzero()[:, 0]), (self.scenes, (~own).nonzero()[:, 0])):
            if data is not None and len(places):
                yield data, places, self.source[index[places]]

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def draw(self, index: Tensor, size: int, corner: Tensor | None = None, side: float = 1.0) -> Tensor:
        """As Scenes.draw. Crops are everywhere anyway, so that only whole pictures are shifted."""
        out = torch.empty(len(index), 3, size, size, device=self.device)
        for data, places, rows in self.parts(index):
            there = places.to(self.device)
            if corner is not None:
                out[there] = data.draw(rows, size, corner[there], side)
            elif isinstance(data, Pictures):
                out[there] = view(data, rows, self.window[index[places]].to(self.device), size)
            else:
                out[there] = data.draw(rows, size)
        return out


def view(pictures: Pictures, rows: Tensor, window: Tensor, size: int) -> Tensor:
    """Pictures [n, 3, size, size] of windows [n, 3] that may reach beyond the edge, which then goes on."""
    level = min((side for side in pictures.levels if side >= 2 * size), default=max(pictures.levels))
    stored = pictures.levels[level][rows.to(pictures.device)].permute(0, 3, 1, 2).float()
    across, down = (cover(window[:, axis], window[:, 2], size, level)[:, None] for axis in (0, 1))
    return (down @ stored @ across.transpose(2, 3) / 127.5 - 1).clamp(-1, 1)


def cover(start: Tensor, extent: Tensor, size: int, level: int) -> Tensor:
    """The share [n, size, level] of each pixel's width that each texel takes; the outermost reach without end."""
    edge = torch.arange(size + 1, device=start.device) / size
    exact = (start[:, None] + edge * extent[:, None]) * level
    low = torch.arange(level, device=start.device, dtype=torch.float32)
    high = low + 1
    low[0], high[-1] = -torch.inf, torch.inf
    reach = torch.minimum(exact[:, 1:, None], high) - torch.maximum(exact[:, :-1, None], low)
    return reach.clamp(min=0) / (exact[:, 1:2] - exact[:, :1])[:, :, None]


def windows(count: int) -> Tensor:
    """[count, 3], the same in every run."""
    dice = torch.rand((count, 3), generator=torch.Generator().manual_seed(0)) * 2 - 1
    side = 1 + SCALE * dice[:, 2:]
    return torch.cat([0.5 + SHIFT * dice[:, :2] - side / 2, side], 1)


def row_count(pictures: int, share: float) -> int:
    """Enough for every picture to stand in one."""
    return max(ROWS, -(-round(pictures / (1 - share)) // GROUP) * GROUP + GROUP)


def scene_count(rows: int, share: float) -> int:
    return int(blocks_of_scenes(rows, share).sum()) * GROUP


def blocks_of_scenes(rows: int, share: float) -> Tensor:
    """bool [rows / GROUP]: which blocks are scenes, evenly spread."""
    passed = (torch.arange(rows // GROUP + 1, dtype=torch.float64) * share + 1e-9).floor()
    return passed[1:] > passed[:-1]


def mix(pictures: Pictures, scenes: Scenes | None, share: float) -> Mixed:
    """Pictures with a share of scenes, of which there are at least `scene_count`."""
    rows = row_count(len(pictures), share)
    own = ~blocks_of_scenes(rows, share).repeat_interleave(GROUP)
    source = torch.where(own, (own.long().cumsum(0) - 1) % len(pictures), (~own).long().cumsum(0) - 1)
    columns = {name: getattr(pictures, name)[source % len(pictures)] for name in ("tokens", "meaning")}
    if scenes is not None:
        for name, column in columns.items():
            column[~own] = getattr(scenes, name)[source[~own]]
    return Mixed(pictures, scenes, own, source, windows(rows), **columns)
