"""Inputs and weights of goldens from the hash of synth.py, and models loaded from their manifests."""

from __future__ import annotations

import os
from functools import cache
from math import sqrt
from pathlib import Path

import torch

from golden_models import MODELS, spread
from store import WHOLE
from synth import fill, synth_model

# Scales a uniform stream to a standard deviation of 1.
UNIT = f"{sqrt(12):.9g}"


class Inputs:
    """The inputs of one golden: `tensors` go into the file as in.*, large ones as a setting hash.*."""

    def __init__(self, case: str) -> None:
        self.case = case
        self.tensors: dict[str, torch.Tensor] = {}
        self.settings: dict[str, str] = {}

    def add(self, name: str, *shape: int, gain: float = 1.0) -> torch.Tensor:
        """A tensor of the stream `input/<case>/<name>`, its standard deviation `gain`."""
        stream = f"input/{self.case}/{name}"
        scale = f"{gain * float(UNIT):.9g}"
        tensor = torch.from_numpy(fill(stream, shape, float(scale)))
        if tensor.numel() > WHOLE:
            self.settings[f"hash.{name}"] = f"{stream} {scale} {'x'.join(map(str, shape))}"
        else:
            self.tensors[f"in.{name}"] = tensor
        return tensor

    def put(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor given as it is; masks are stored as bytes."""
        self.tensors[f"in.{name}"] = tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor
        return tensor

    def mask(self, name: str, length: int, *tokens: int) -> torch.Tensor:
        """[len(tokens), length]: row i is true for its first tokens[i] entries."""
        return self.put(name, torch.arange(length)[None] < torch.tensor(tokens)[:, None])


def seeded(case: str, module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Fills a module from the streams `<case>/<tensor>` and returns its weights as w.*, for the file."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            shape = tuple(tensor.shape)
            tensor.copy_(torch.from_numpy(fill(f"{case}/{name}", shape, *spread(name, shape))))
    module.eval()
    return {f"w.{name}": tensor for name, tensor in module.state_dict().items()}


@cache
def model_folder(name: str, dtype: str | None = None) -> Path:
    """The model written out with its weights, outside the repository."""
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(cache_home) / "unclip" / "golden-models" / f"{name}-{dtype or 'f32'}"
    folder.mkdir(parents=True, exist_ok=True)
    synth_model(MODELS / name, folder, dtype)
    return folder
