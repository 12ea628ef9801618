# SPDX-License-Identifier: Apache-2.0
"""Draws scenes in batches on any device.

Everything is axis-aligned. A whole picture takes each layer from a mip level of at least twice its size and averages
exactly over each pixel: two matrix products a layer. A window draws a part of the canvas only, which is how crops of
large pictures are made without drawing the rest: bilinear from the level that fits, at twice the size, then averaged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .scenes import MAX_LAYERS
from .sprites import Atlas, levels
from .table import SceneTable

SUPERSAMPLE = 2
LUMINANCE = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Scenes:
    """A SceneTable and the atlas it is drawn from, on one device. Atlases of several sizes may be given."""

    sprite: Tensor
    place: Tensor
    tint: Tensor
    background: Tensor
    tokens: Tensor  # [n, languages, length]
    meaning: Tensor
    labels: Tensor
    atlases: dict[int, Tensor]  # by size: uint8 [sprites, texels, 4]
    layers: Tensor  # uint8 [n]: how many a scene has; on the host, so that drawing never waits for the device
    group: int

    def __len__(self) -> int:
        return len(self.sprite)

    @property
    def device(self) -> torch.device:
        return self.sprite.device

    def draw(self, index: Tensor, size: int, corner: Tensor | None = None, side: float = 1.0) -> Tensor:
        """Pictures [n, 3, size, size] in [-1, 1] of the scenes `index` (on the host).

        With `corner` [n, 2] (left and top) a window of `side` is drawn, all as fractions of the canvas.
        """
        if corner is None and any(SUPERSAMPLE * size <= side for side in self.atlases):
            return self.draw_layers(index, size, lambda rows, sprite, place: self.average(sprite, place, size)) * 2 - 1
        left_top = torch.zeros(len(index), 2, device=self.device) if corner is None else corner
        fine, atlas_size = size * SUPERSAMPLE, self.atlas_for(size / side)
        drawn = self.draw_layers(
            index, fine, lambda rows, sprite, place: self.sample(sprite, place, fine, left_top[rows], side, atlas_size)
        )
        return functional.avg_pool2d(drawn, SUPERSAMPLE) * 2 - 1

    def draw_layers(self, index: Tensor, size: int, cut: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """Lays the layers of each scene over its background; `cut` gives a layer's premultiplied RGBA [n, 4, size, size]."""
        there = index.to(self.device, non_blocking=True)
        layers = self.layers[index]
        canvas = (self.background[there].float() / 255)[:, :, None, None].repeat(1, 1, size, size)
        weights = torch.tensor(LUMINANCE, device=self.device)[:, None, None]
        for at in range(MAX_LAYERS):
            rows = (layers > at).nonzero().squeeze(1).to(self.device, non_blocking=True)
            if not len(rows):
                break
            scene = there[rows]
            layer = cut(rows, self.sprite[scene, at].long(), self.place[scene, at])
            colour, alpha = layer[:, :3], layer[:, 3:]
            tint = self.tint[scene, at].float()[:, :, None, None] / 255
            luminance = (colour * weights).sum(1, keepdim=True)
            tinted = tint[:, :3] * (0.25 * alpha + 0.75 * luminance)
            canvas[rows] = torch.where(tint[:, 3:] > 0, tinted, colour) + canvas[rows] * (1 - alpha)
        return canvas

    def average(self, sprite: Tensor, place: Tensor, size: int) -> Tensor:
        """A sprite on the whole canvas [n, 4, size, size], each pixel the mean of the texels that it covers."""
        atlas_size = min(side for side in self.atlases if side >= SUPERSAMPLE * size)
        sides = levels(atlas_size)
        side = min(side for side in sides if side >= SUPERSAMPLE * size)
        start = sum(larger * larger for larger in sides if larger > side)
        texels = self.atlases[atlas_size][:, start : start + side * side][sprite].float().view(-1, side, side * 4)
        rows, columns = (self.cover(place[:, axis], place[:, 2], size, side) for axis in (1, 0))
        across = (rows / 255 @ texels).view(-1, size, side, 4).transpose(2, 3).reshape(-1, size * 4, side)
        return (across @ columns.transpose(1, 2)).view(-1, size, 4, size).transpose(1, 2)

    @staticmethod
    def cover(centre: Tensor, extent: Tensor, size: int, side: int) -> Tensor:
        """The share [n, size, side] of each pixel's width that each texel of the sprite takes."""
        edge = torch.arange(size + 1, device=centre.device) / size
        exact = ((edge - centre[:, None]) / extent[:, None] + 0.5) * side
        texel = torch.arange(side, device=centre.device)
        reach = torch.minimum(exact[:, 1:, None], texel + 1.0) - torch.maximum(exact[:, :-1, None], texel.float())
        return reach.clamp(min=0) / (exact[:, 1:2] - exact[:, :1])[:, :, None]

    def atlas_for(self, whole: float) -> int:
        """The smallest atlas with a texel for each pixel of a canvas of that size, else the largest."""
        fitting = [side for side in sorted(self.atlases) if side >= whole]
        return fitting[0] if fitting else max(self.atlases)

    def sample(self, sprite: Tensor, place: Tensor, fine: int, corner: Tensor, reach: float, atlas_size: int) -> Tensor:
        """A sprite in a window [n, 4, fine, fine], transparent outside of it."""
        sides = torch.tensor(levels(atlas_size), device=sprite.device)
        starts = torch.cat([sides.new_zeros(1), (sides * sides).cumsum(0)[:-1]])
        wanted = place[:, 2] / reach * fine  # pixels across
        level = (sides[None] >= wanted[:, None]).sum(1).clamp(min=1) - 1
        side = sides[level]
        pixel = (torch.arange(fine, device=sprite.device) + 0.5) / fine
        axes = [
            self.taps((corner[:, axis, None] + pixel * reach - place[:, axis, None]) / place[:, 2, None] + 0.5, side)
            for axis in (0, 1)
        ]
        texels = self.atlases[atlas_size]
        flat = texels.view(-1, 4)
        base = sprite * texels.shape[1] + starts[level]
        total = torch.zeros(len(sprite), fine, fine, 4, device=sprite.device)
        for row, row_weight in axes[1]:
            for column, column_weight in axes[0]:
                where = base[:, None, None] + row[:, :, None] * side[:, None, None] + column[:, None, :]
                total += flat[where].float() * (row_weight[:, :, None] * column_weight[:, None, :])[..., None]
        return total.permute(0, 3, 1, 2) / 255

    @staticmethod
    def taps(position: Tensor, side: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The two texels on either side of `position` [n, fine] (0 to 1 across the sprite), and their weights."""
        exact = position * side[:, None] - 0.5
        low = exact.floor()
        found = []
        for texel, weight in ((low, low + 1 - exact), (low + 1, exact - low)):
            inside = (texel >= 0) & (texel < side[:, None])
            found.append((torch.minimum(texel.clamp(min=0).long(), side[:, None] - 1), weight * inside))
        return found


def on_device(table: SceneTable, atlases: list[Atlas], group: int, device: torch.device) -> Scenes:
    """On a CPU the atlases stay mapped files, which the page cache keeps; on a GPU they are copied to its memory."""
    columns = {name: torch.from_numpy(np.array(getattr(table, name))).to(device) for name in SceneTable.__dataclass_fields__}
    layers = torch.from_numpy((table.sprite >= 0).sum(1).astype(np.uint8))
    return Scenes(**columns, atlases={a.size: torch.from_numpy(a.texels).to(device) for a in atlases}, layers=layers, group=group)
