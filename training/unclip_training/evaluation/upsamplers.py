# SPDX-License-Identifier: Apache-2.0
"""The diffusion upsamplers against Lanczos and a regression network, on renderings that were averaged to a quarter of
their side. Whole pictures are enlarged: the networks learn from crops, and what they do changes with the size.

The regression network is a U-Net of the sizes of the preset's upsampler, without noise or steps: it adds to the bicubic enlargement
what lowers the squared error most. It learns from the crops and the degradations that the upsampler learns from, in
scenes of the judges' seed, and is kept beside them.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from .. import models
from ..context import Context, Data
from ..data.compositor import Scenes
from ..loop import is_met, pick
from ..presets import Run, Upsampler
from ..stages.degrade import blur_some, bsr
from ..stages.upsampler import FACTOR, MARGIN, corners
from ..train import log
from . import likeness
from .judges import SEED as LESSONS_SEED
from .judging import SEED, train
from .large import CROP_SEED, cut
from .pictures import numbers

CROP, LOOKS = 128, 4  # side and number of the crops of a picture that are compared
Enlarge = Callable[[Tensor, int], Tensor]  # a small picture [1, 3, s, s], and its number
Upscaler = Callable[[Tensor, list[torch.Generator]], Tensor]  # each row with its own noise


def bicubic(pictures: Tensor) -> Tensor:
    return functional.interpolate(pictures, scale_factor=FACTOR, mode="bicubic", antialias=True, align_corners=False)


def lanczos(pictures: Tensor) -> Tensor:
    """Pillow's, of three lobes, in f32."""
    side = FACTOR * pictures.shape[-1]
    planes = (Image.fromarray(plane).resize((side, side), Image.Resampling.LANCZOS) for plane in pictures.flatten(0, 1).numpy())
    found = torch.stack([torch.from_numpy(np.array(plane)) for plane in planes])
    return found.view(*pictures.shape[:2], side, side).clamp(-1, 1)


class Regression(nn.Module):
    """Small pictures [n, 3, s, s] to [n, 3, 4 s, 4 s]."""

    def __init__(self, config: Upsampler, size: int) -> None:
        super().__init__()
        self.network = models.upsampler(config, size)
        self.network.conv_in = nn.Conv2d(3, config.channels[0], 3, padding=1)
        nn.init.zeros_(self.network.conv_out.weight)
        nn.init.zeros_(self.network.conv_out.bias)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.sharpen(bicubic(pictures))

    def sharpen(self, enlarged: Tensor) -> Tensor:
        given = enlarged.contiguous(memory_format=torch.channels_last)
        return enlarged + self.network(given, torch.zeros((), dtype=torch.long, device=given.device)).sample


class RegressionStage:
    def __init__(self, context: Context, config: Upsampler, size: int, data: Data, run: Run) -> None:
        self.name, self.context, self.config, self.size, self.data, self.run = name_of(size), context, config, size, data, run
        self.network = Regression(config, size).to(context.device, memory_format=torch.channels_last)

    def loss(self, progress: float, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        side = self.config.crop + 2 * MARGIN
        index = pick(len(self.data), self.run.batch, generator)
        corner = corners(self.data, index, self.size, side, generator)
        sharp = self.data.draw(index, side, corner, side / self.size)
        small = functional.avg_pool2d(sharp, FACTOR)
        small = bsr(small, generator) if self.size == 1024 else blur_some(small, generator)
        enlarged = bicubic(small)
        inner = slice(MARGIN, MARGIN + self.config.crop)
        with self.context.autocast:
            found = self.network.sharpen(enlarged[:, :, inner, inner])
        error = (found.float() - sharp[:, :, inner, inner]).square().mean()
        return error, {"enlarging": (enlarged - sharp)[:, :, inner, inner].square().mean()}


def name_of(size: int) -> str:
    return f"regression-{size}"


def config_of(context: Context, size: int) -> Upsampler:
    return context.preset.upsampler_1 if size == 256 else context.preset.upsampler_2


def regression(context: Context, size: int, run: Run, scenes: int) -> Regression:
    """Trained when it is missing, or on where it was for less than is asked for."""
    config = config_of(context, size)
    if not is_met(context.checkpoint(name_of(size)), run):
        data = context.large_data if size == 1024 else context.open_scenes(
            context.concepts, context.preset.data.atlas, LESSONS_SEED, scenes, False
        )
        train(context, RegressionStage(context, config, size, data, run))
    return context.frozen(Regression(config, size), name_of(size))


def compare(scenes: Scenes, size: int, ways: dict[str, Enlarge], perceptual: likeness.Distance | None) -> dict:
    """PSNR, SSIM and ST-LPIPS of each way to enlarge: whole pictures, as in use, looked at in crops near what they show."""
    index = torch.arange(len(scenes)).repeat_interleave(LOOKS)
    places = corners(scenes, index, size, CROP, torch.Generator().manual_seed(CROP_SEED)).split(LOOKS)
    each: dict[str, list[Tensor]] = {name: [] for name in ("sharp", *ways)}
    for at, corner in enumerate(places):
        sharp = scenes.draw(torch.tensor([at]), size, torch.zeros(1, 2))
        made = {name: enlarge(functional.avg_pool2d(sharp, FACTOR), at).cpu() for name, enlarge in ways.items()}
        for name, picture in ({"sharp": sharp} | made).items():
            each[name].append(cut(picture, torch.zeros(LOOKS, dtype=torch.long), corner, CROP))
    found: dict = {"pictures": len(scenes)}
    for name in ways:
        found[name] = likeness.compare(torch.cat(each[name]), torch.cat(each["sharp"]), perceptual)
        log(f"{size}, {name}: {json.dumps(found[name])}")
    return found


def ways(diffusion: Upscaler, regressed: Regression | None, device: torch.device) -> dict[str, Enlarge]:
    """Lanczos, the regression network where there is one, and the diffusion upsampler with its own steps."""
    found: dict[str, Enlarge] = {"lanczos": lambda small, _: lanczos(small)}
    if regressed:
        found["regression"] = lambda small, _: regressed(small.to(device)).clamp(-1, 1)
    return found | {"diffusion": lambda small, at: diffusion(small, numbers(SEED + at, len(small)))}
