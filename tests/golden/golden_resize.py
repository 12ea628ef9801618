"""F.interpolate, bicubic with antialias, as the pipeline uses it between decoder and upsampler."""

from __future__ import annotations

import torch.nn.functional as F

from inputs import Inputs
from store import big, save

# name: channels, input height and width, output height and width
CASES = {
    "4x-small": (3, 8, 8, 32, 32),
    "4x": (3, 16, 16, 64, 64),
    "4x-large": (3, 64, 64, 256, 256),
    "uneven": (2, 5, 7, 12, 9),
    "down": (3, 24, 20, 10, 7),
}


def generate() -> None:
    for name, (channels, height, width, out_height, out_width) in CASES.items():
        given = Inputs(f"resize-{name}")
        x = given.add("x", 1, channels, height, width, gain=0.5)
        y = F.interpolate(x, size=(out_height, out_width), mode="bicubic", align_corners=False, antialias=True)
        save(given.case, given.tensors | big("out.y", y), **given.settings)
