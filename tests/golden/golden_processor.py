"""CLIPImageProcessor on small pictures: Pillow's bicubic resize, centre crop, normalisation."""

from __future__ import annotations

import numpy as np
from transformers import CLIPImageProcessor

from inputs import model_folder
from store import save
from synth import fill

# name: height, width
CASES = {"wide": (37, 50), "tall": (64, 20), "square": (32, 32)}


def picture(case: str, height: int, width: int) -> np.ndarray:
    """[h, w, 3] bytes: slopes with noise on top."""
    rows, columns = np.mgrid[0:height, 0:width]
    slopes = np.stack([rows / height, columns / width, (rows + columns) / (height + width)], axis=-1)
    return ((slopes * 0.8 + 0.1 + 0.2 * fill(f"input/{case}/image", (height, width, 3))) * 255).astype(np.uint8)


def generate() -> None:
    processor = CLIPImageProcessor.from_pretrained(model_folder("mini") / "feature_extractor")
    for name, (height, width) in CASES.items():
        case = f"processor-{name}"
        image = picture(case, height, width)
        values = processor(image, return_tensors="np").pixel_values
        save(case, {"in.image": image, "out.pixel_values": values}, model="mini")
