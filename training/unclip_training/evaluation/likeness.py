# SPDX-License-Identifier: Apache-2.0
"""How like its original an enlarged picture is: PSNR, SSIM, and ST-LPIPS. Pictures are [n, 3, h, w] in [-1, 1].

ST-LPIPS (Ghildyal and Liu, ECCV 2022) is LPIPS with an AlexNet whose strides are blurred first, trained on the same
human judgements, so that a shift by a pixel hardly counts. It is taken rather than LPIPS or DISTS because its weights,
trunk included, come as a Python package (stlpips-pytorch, BSD-2-Clause; only the weights are read); those of the other
two have to be fetched from elsewhere. Its figures are not to be compared with LPIPS's of papers.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..convert import pickles

PACKAGE = "stlpips_pytorch"
WEIGHTS = Path("weights") / "vST0.0" / "alex_shift_tolerant.pth"
WINDOW, SIGMA = 11, 1.5  # of SSIM (Wang et al. 2004)
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # LPIPS's scaling of its input


def psnr(made: Tensor, real: Tensor) -> float:
    """Decibels of the mean error of all pictures, so that a flat one, enlarged without any, does not decide; at most 120."""
    error = ((made - real) / 2).square().mean()
    return float(-10 * error.clamp(min=1e-12).log10())


def ssim(made: Tensor, real: Tensor) -> Tensor:
    """Structural similarity [n], 1 for equal pictures; each channel by itself."""
    reach = torch.arange(WINDOW, dtype=made.dtype, device=made.device) - WINDOW // 2
    row = (-reach.square() / (2 * SIGMA**2)).exp()
    row = row / row.sum()
    kernel = (row[:, None] * row[None]).expand(3, 1, -1, -1)

    def local(pictures: Tensor) -> Tensor:
        return functional.conv2d(pictures, kernel, groups=3)

    a, b = (made + 1) / 2, (real + 1) / 2
    mean_a, mean_b = local(a), local(b)
    variance_a, variance_b = local(a * a) - mean_a**2, local(b * b) - mean_b**2
    covariance = local(a * b) - mean_a * mean_b
    same = (2 * mean_a * mean_b + 0.01**2) * (2 * covariance + 0.03**2)
    return (same / ((mean_a**2 + mean_b**2 + 0.01**2) * (variance_a + variance_b + 0.03**2))).flatten(1).mean(1)


class Blur(nn.Module):
    """A binomial blur before every second pixel is taken (Zhang 2019)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", torch.zeros(channels, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(functional.pad(x, (2, 2, 2, 2), mode="reflect"), self.filt, stride=2, groups=x.shape[1])


class Distance(nn.Module):
    """ST-LPIPS [n]: 0 for equal pictures, larger for less alike ones. Parts are numbered as in its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.ModuleDict({
            "slice1": nn.ModuleDict({"0": nn.Conv2d(3, 64, 11, padding=2), "1": Blur(64), "2": nn.ReLU()}),
            "slice2": nn.ModuleDict({
                "3": nn.MaxPool2d(3, 1), "4": Blur(64), "5": nn.Conv2d(64, 192, 5, padding=2), "6": nn.ReLU(),
            }),
            "slice3": nn.ModuleDict({
                "7": nn.MaxPool2d(3, 1), "8": Blur(192), "9": nn.Conv2d(192, 384, 3, padding=1), "10": nn.ReLU(),
            }),
            "slice4": nn.ModuleDict({"11": nn.Conv2d(384, 256, 3, padding=1), "12": nn.ReLU()}),
            "slice5": nn.ModuleDict({"13": nn.Conv2d(256, 256, 3, padding=1), "14": nn.ReLU()}),
        })
        for at, channels in enumerate((64, 192, 384, 256, 256)):
            weigh = nn.Conv2d(channels, 1, 1, bias=False)
            self.register_module(f"lin{at}", nn.ModuleDict({"model": nn.ModuleDict({"1": weigh})}))
        self.scaling_layer = nn.Module()
        self.scaling_layer.register_buffer("shift", torch.tensor(SHIFT)[:, None, None][None])
        self.scaling_layer.register_buffer("scale", torch.tensor(SCALE)[:, None, None][None])

    def maps(self, pictures: Tensor) -> list[Tensor]:
        """Of each slice, with vectors of length 1."""
        x, found = (pictures - self.scaling_layer.shift) / self.scaling_layer.scale, []
        for part in self.net.values():
            for layer in part.values():
                x = layer(x)
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    @torch.no_grad()
    def forward(self, made: Tensor, real: Tensor) -> Tensor:
        total = torch.zeros(len(made), device=made.device)
        for at, (a, b) in enumerate(zip(self.maps(made), self.maps(real), strict=True)):
            weigh = self.get_submodule(f"lin{at}.model.1")
            total += weigh((a - b).square()).mean((1, 2, 3))
        return total


def distance(device: torch.device) -> Distance | None:
    """ST-LPIPS with its weights, or None where its package is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        return None
    network = Distance()
    network.load_state_dict(pickles.load(Path(found.submodule_search_locations[0]) / WEIGHTS))
    return network.to(device).eval().requires_grad_(False)


def compare(made: Tensor, real: Tensor, perceptual: Distance | None) -> dict[str, float | None]:
    """PSNR of all pictures, means of the others. More is better but for st_lpips."""
    found = {"psnr": round(psnr(made, real), 2), "ssim": round(float(ssim(made, real).mean()), 4)}
    parts = zip(made.split(8), real.split(8), strict=True)
    far = torch.cat([perceptual(a, b) for a, b in parts]).mean() if perceptual else None
    return found | {"st_lpips": None if far is None else round(float(far), 4)}
