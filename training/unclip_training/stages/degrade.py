# SPDX-License-Identifier: Apache-2.0
"""Degradations of small pictures, in batches on any device: a blur (Ho et al. 2021) and BSR (Rombach et al. 2022).

BSR draws, in a random order, blurs of any shape, a resize there and back, noise and JPEG's quantisation. Pictures are
[n, 3, h, w] in [-1, 1].
"""

from __future__ import annotations

import math
from random import Random

import torch
from torch import Tensor
from torch.nn import functional

JPEG_LUMINANCE = torch.tensor([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
], dtype=torch.float32)


def rand(count: int, low: float, high: float, generator: torch.Generator, device: torch.device) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator, device=device)


def convolve(pictures: Tensor, kernels: Tensor) -> Tensor:
    """Each picture with its own kernel [n, k, k]."""
    count, channels, height, width = pictures.shape
    pad = kernels.shape[-1] // 2
    padded = functional.pad(pictures, (pad,) * 4, mode="replicate").view(1, count * channels, height + 2 * pad, width + 2 * pad)
    weight = kernels.repeat_interleave(channels, 0)[:, None]
    return functional.conv2d(padded, weight, groups=count * channels).view(pictures.shape)


def gaussian(sigma_x: Tensor, sigma_y: Tensor, angle: Tensor, size: int) -> Tensor:
    """Kernels [n, size, size] that sum to 1."""
    reach = torch.arange(size, device=sigma_x.device) - size // 2
    y, x = torch.meshgrid(reach, reach, indexing="ij")
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    u, v = (cosine * x + sine * y) / sigma_x[:, None, None], (cosine * y - sine * x) / sigma_y[:, None, None]
    kernels = (-(u.square() + v.square()) / 2).exp()
    return kernels / kernels.sum((1, 2), keepdim=True)


def blur_some(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """A 3 x 3 blur of sigma up to 0.6 on half of the pictures, and on half a little noise, as an unfinished stage leaves."""
    count, device = len(pictures), pictures.device
    sigma = rand(count, 0.05, 0.6, generator, device)
    blurred = convolve(pictures, gaussian(sigma, sigma, torch.zeros_like(sigma), 3))
    chosen = torch.rand((2, count, 1, 1, 1), generator=generator, device=device) < 0.5
    current = torch.where(chosen[0], blurred, pictures)
    return torch.where(chosen[1], add_noise(current, 0.03, generator), current)


def add_noise(pictures: Tensor, most: float, generator: torch.Generator) -> Tensor:
    amount = rand(len(pictures), 0, most, generator, pictures.device)[:, None, None, None]
    return pictures + amount * torch.randn(pictures.shape, generator=generator, device=pictures.device)


def resize_and_back(pictures: Tensor, generator: torch.Generator) -> Tensor:
    height, width = pictures.shape[-2:]
    dice = Random(generator.initial_seed() + 1)
    factor, down, up = dice.random(), dice.random(), dice.random()
    modes = ("bilinear", "bicubic")
    small = (max(4, round(height * (0.5 + 0.7 * factor))), max(4, round(width * (0.5 + 0.7 * factor))))
    there = functional.interpolate(pictures, size=small, mode=modes[down < 0.5], antialias=True)
    return functional.interpolate(there, size=(height, width), mode=modes[up < 0.5], antialias=True)


def jpeg(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Quantises 8 x 8 cosine coefficients of each channel at a quality of 40 to 95; sides are multiples of 8."""
    count, channels, height, width = pictures.shape
    position = torch.arange(8, dtype=torch.float32, device=pictures.device)
    basis = torch.cos((2 * position[None] + 1) * position[:, None] * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    quality = rand(count, 40, 95, generator, pictures.device)
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    table = (JPEG_LUMINANCE.to(pictures.device) * scale[:, None, None]).clamp(min=1)[:, None, None, None]
    blocks = (pictures * 127.5).view(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = (basis @ blocks @ basis.T / table).round() * table
    return (basis.T @ coefficients @ basis).transpose(3, 4).reshape(pictures.shape) / 127.5


def blur_any(pictures: Tensor, generator: torch.Generator) -> Tensor:
    count, device = len(pictures), pictures.device
    sigmas = [rand(count, 0.05, 1.2, generator, device) for _ in range(2)]
    return convolve(pictures, gaussian(*sigmas, rand(count, 0, math.pi, generator, device), 7))


def bsr(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """All degradations in one random order a batch, each on a random half of the pictures."""
    steps = (blur_any, resize_and_back, lambda p, g: add_noise(p, 0.08, g), jpeg)
    current = pictures
    for at in Random(generator.initial_seed()).sample(range(len(steps)), len(steps)):
        chosen = torch.rand((len(pictures), 1, 1, 1), generator=generator, device=pictures.device) < 0.5
        current = torch.where(chosen, steps[at](current, generator), current)
    return current.clamp(-1, 1)
