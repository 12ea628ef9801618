# SPDX-License-Identifier: Apache-2.0
"""Draws scenes in batches on any device: layers of sprites, bilinear from the mip level that fits, then averaged down.

Everything is axis-aligned, so that a layer is one gather by row and column indices. A window draws a part of the
canvas only, which is how crops of large pictures are made without drawing the rest.
"""

from __future__ import annotations

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
    group: int

    def __len__(self) -> int:
        return len(self.sprite)

    @property
    def device(self) -> torch.device:
        return self.sprite.device

    def draw(self, index: Tensor, size: int, window: Tensor | None = None) -> Tensor:
        """Pictures [n, 3, size, size] in [-1, 1]. `window` [n, 3]: left, top and side of what is drawn, as fractions."""
        atlas_size = self.atlas_for(size, window)
        fine = size * SUPERSAMPLE
        canvas = (self.background[index].float() / 255)[:, None, None, :].expand(-1, fine, fine, -1).contiguous()
        if window is None:
            window = torch.tensor([0.0, 0.0, 1.0], device=self.device).expand(len(index), 3)
        for at in range(MAX_LAYERS):
            rows = (self.sprite[index, at] >= 0).nonzero().squeeze(1)
            if len(rows):
                self.draw_layer(canvas, rows, index[rows], at, window[rows], atlas_size)
        picture = functional.avg_pool2d(canvas.permute(0, 3, 1, 2), SUPERSAMPLE)
        return picture.contiguous() * 2 - 1

    def atlas_for(self, size: int, window: Tensor | None) -> int:
        """The smallest atlas with a texel for each pixel of the whole canvas, else the largest."""
        whole = size if window is None else int(size / float(window[:, 2].min()))
        fitting = [side for side in sorted(self.atlases) if side >= whole]
        return fitting[0] if fitting else max(self.atlases)

    def draw_layer(self, canvas: Tensor, rows: Tensor, scene: Tensor, at: int, window: Tensor, atlas_size: int) -> None:
        place, tint = self.place[scene, at], self.tint[scene, at].float() / 255
        texel = self.sample(self.sprite[scene, at].long(), place, canvas.shape[1], window, atlas_size)
        alpha = texel[..., 3:]
        luminance = texel[..., :3] @ torch.tensor(LUMINANCE, device=texel.device)[:, None]
        tinted = tint[:, None, None, :3] * (0.25 * alpha + 0.75 * luminance)
        colour = torch.where(tint[:, None, None, 3:] > 0, tinted, texel[..., :3])
        canvas[rows] = colour + canvas[rows] * (1 - alpha)

    def sample(self, sprite: Tensor, place: Tensor, fine: int, window: Tensor, atlas_size: int) -> Tensor:
        """Premultiplied RGBA [n, fine, fine, 4] of one sprite a scene, transparent outside of it."""
        sides = torch.tensor(levels(atlas_size), device=sprite.device)
        starts = torch.cat([sides.new_zeros(1), (sides * sides).cumsum(0)[:-1]])
        wanted = place[:, 2] / window[:, 2] * fine  # pixels across
        level = (sides[None] >= wanted[:, None]).sum(1).clamp(min=1) - 1
        side = sides[level]
        pixel = (torch.arange(fine, device=sprite.device) + 0.5) / fine
        axes = [
            self.taps((window[:, axis, None] + pixel * window[:, 2, None] - place[:, axis, None]) / place[:, 2, None] + 0.5, side)
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
        return total / 255

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
    return Scenes(**columns, atlases={a.size: torch.from_numpy(a.texels).to(device) for a in atlases}, group=group)
