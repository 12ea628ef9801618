# SPDX-License-Identifier: Apache-2.0
"""What the model's own CLIP says of pictures and captions, and how far two pictures are apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPTextModelWithProjection, CLIPTokenizerFast, CLIPVisionModelWithProjection


class Judge:
    """A model directory's encoders. Embeddings are rows of length 1."""

    def __init__(self, model: Path) -> None:
        torch.set_grad_enabled(False)
        self.vision = CLIPVisionModelWithProjection.from_pretrained(model / "image_encoder").eval()
        self.text = CLIPTextModelWithProjection.from_pretrained(model / "text_encoder").eval()
        self.tokens = CLIPTokenizerFast.from_pretrained(model / "tokenizer")
        self.pixels = CLIPImageProcessor.from_pretrained(model / "feature_extractor")

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        rows = [self.text(**self.tokens(t, return_tensors="pt", truncation=True)).text_embeds for t in texts]
        return torch.nn.functional.normalize(torch.cat(rows), dim=-1)

    def pictures(self, paths: Sequence[Path]) -> torch.Tensor:
        given = self.pixels(images=[Image.open(path).convert("RGB") for path in paths], return_tensors="pt")
        return torch.nn.functional.normalize(self.vision(**given).image_embeds, dim=-1)


def psnr(a: Path, b: Path) -> float:
    x, y = (np.asarray(Image.open(path).convert("RGB")).astype(float) for path in (a, b))
    error = float(np.mean((x - y) ** 2))
    return 10 * np.log10(255**2 / error) if error else float("inf")


def compare(
    judge: Judge, captions: Sequence[str], paths: list[Path], exact: list[Path], reference: list[Path]
) -> dict[str, float]:
    """Pictures, the exact ones and those that PSNR is taken against (which may be the pictures themselves)."""
    told, seen, seen_exact = judge.texts(captions), judge.pictures(paths), judge.pictures(exact)
    text = (seen * told).sum(1)
    change = text - (seen_exact * told).sum(1)
    row = {
        "text": float(text.mean()),
        "text_change": float(change.mean()),
        "text_change_error": float(change.std() / len(paths) ** 0.5),
        "likeness": float((seen * seen_exact).sum(1).mean()),
    }
    if paths == reference:
        return row
    decibel = [psnr(a, b) for a, b in zip(paths, reference, strict=True)]
    return row | {"psnr": float(np.mean(decibel)), "psnr_least": min(decibel)}
