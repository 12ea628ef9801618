# SPDX-License-Identifier: Apache-2.0
"""The upsamplers (unCLIP, section 2.1): diffusion on a picture that is given small, blurred a little, and enlarged.

Trained on crops, run on whole pictures: they have no attention. The low picture is degraded so that small faults of
the stage before are mended rather than enlarged: a Gaussian blur for the first, BSR (degrade.py) for the second.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import models
from ..context import Context, Data
from ..data.compositor import Scenes
from ..data.mixed import Mixed
from ..diffusion import STEPS, Diffusion
from ..loop import pick
from ..presets import Upsampler
from .degrade import blur_some, bsr

FACTOR = 4
MARGIN = 16  # pixels drawn around a crop, so that enlarging sees its surroundings
ANYWHERE = 0.25  # share of crops that need not show anything


def corners(data: Data, index: Tensor, size: int, side: int, generator: torch.Generator) -> Tensor:
    """Where to crop [n, 2]: near something drawn where that is known, on the grid of the small picture's pixels."""
    if isinstance(data, Mixed):
        found = torch.empty(len(index), 2, device=data.device)
        for part, places, rows in data.parts(index):
            found[places.to(data.device)] = corners(part, rows, size, side, generator)
        return found
    cells, reach = size // FACTOR, side // FACTOR
    count = len(index)
    corner = torch.rand((count, 2), generator=generator, device=data.device) * (cells - reach + 1)
    if isinstance(data, Scenes):
        layers, there = data.layers[index].to(data.device), index.to(data.device)
        chosen = (torch.rand(count, generator=generator, device=data.device) * layers).long()
        place = data.place[there, chosen]
        spread = torch.rand((count, 2), generator=generator, device=data.device) - 0.5
        near = (place[:, :2] + spread * place[:, 2:]) * cells - reach / 2
        anywhere = torch.rand((count, 1), generator=generator, device=data.device) < ANYWHERE
        corner = torch.where(anywhere, corner, near)
    return corner.floor().clamp(0, cells - reach) / cells


class UpsamplerStage:
    def __init__(self, context: Context, name: str, config: Upsampler, size: int) -> None:
        self.context, self.name, self.config, self.size = context, name, config, size
        self.run = config.run
        network = models.upsampler(config, size).to(context.device, memory_format=torch.channels_last)
        nn.init.zeros_(network.conv_out.weight)
        nn.init.zeros_(network.conv_out.bias)
        context.initialise(network, name)
        self.network = network
        self.diffusion = Diffusion(config.prediction, context.device)
        self.data = context.large_data if size == 1024 else context.data
        context.maybe_compile(network)

    def loss(self, progress: float, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        device, side = self.context.device, self.config.crop + 2 * MARGIN
        index = pick(len(self.data), self.run.batch, generator)
        corner = corners(self.data, index, self.size, side, generator)
        sharp = self.data.draw(index, side, corner, side / self.size)
        small = functional.avg_pool2d(sharp, FACTOR)
        small = bsr(small, generator) if self.size == 1024 else blur_some(small, generator)
        enlarged = functional.interpolate(small, size=(side, side), mode="bicubic", antialias=True, align_corners=False)
        inner = slice(MARGIN, MARGIN + self.config.crop)
        start, given = sharp[:, :, inner, inner], enlarged[:, :, inner, inner]
        step = torch.randint(STEPS, (len(index),), generator=generator, device=device)
        noise = torch.randn(start.shape, generator=generator, device=device)
        noisy = self.diffusion.noise(start, step, noise)
        with self.context.autocast:
            output = self.network(torch.cat([noisy, given], 1).contiguous(memory_format=torch.channels_last), step).sample
        return self.diffusion.loss(output, start, noisy, noise, step), {"enlarging": (given - start).square().mean()}
