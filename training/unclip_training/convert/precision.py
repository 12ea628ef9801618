# SPDX-License-Identifier: Apache-2.0
"""Number formats of a network's tensors. int8 is weight-only and symmetric: NAME holds integers in [-127, 127] and
NAME.scale an f32 for each output channel (the first dimension), weight = integer * scale; the engine reads
it so (stages/nn/weights.h). Matrices and kernels of some size get it, all else is bf16.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import Refused

FLOATS = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
FORMATS = (*FLOATS, "int8")
SCALE = ".scale"
INT8_LEAST = 4096  # elements: below, little is won
INT8_RANKS = (2, 4)  # matrices and convolution kernels


def is_quantised(name: str, value: Tensor) -> bool:
    return name.endswith(".weight") and value.dim() in INT8_RANKS and value.numel() >= INT8_LEAST


def quantised(name: str, value: Tensor) -> tuple[Tensor, Tensor]:
    """Integers and scales [oc]. A row of zeros has scale 0."""
    rows = value.float().flatten(1)
    if not rows.isfinite().all():
        raise Refused(f"tensor '{name}' holds an infinity or no number; int8 has neither")
    scale = rows.abs().amax(1) / 127
    steps = rows / torch.where(scale > 0, scale, 1)[:, None]
    return steps.round().clamp(-127, 127).to(torch.int8).reshape(value.shape), scale


def dequantised(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """int8 tensors as f32, without their scales; all others as they are."""
    out = dict(tensors)
    for name, value in tensors.items():
        if value.dtype != torch.int8:
            continue
        scale = out.pop(name + SCALE, None)
        if scale is None or scale.dtype != torch.float32 or scale.shape != value.shape[:1]:
            raise Refused(f"tensor '{name}' is int8 and has no '{name}{SCALE}' of {list(value.shape[:1])}")
        out[name] = value.float() * scale.reshape(-1, *[1] * (value.dim() - 1))
    return out


def cast(name: str, value: Tensor, kind: str, saturate: bool) -> Tensor:
    if not value.is_floating_point():
        return value
    result = value.to(FLOATS[kind])
    lost = result.isinf() & value.isfinite()
    if not lost.any():
        return result
    if not saturate:
        raise Refused(
            f"tensor '{name}' has {int(lost.sum())} values that {kind} can't hold (up to {value.abs().max().item():.4g}); "
            "--saturate writes the largest that it can"
        )
    most = torch.finfo(FLOATS[kind]).max
    return torch.where(lost, value.clamp(-most, most), value).to(FLOATS[kind])


def converted(tensors: dict[str, Tensor], kind: str | None, saturate: bool = False) -> dict[str, Tensor]:
    if kind is None:
        return tensors
    out: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if kind != "int8":
            out[name] = cast(name, value, kind, saturate)
        elif not is_quantised(name, value):
            out[name] = cast(name, value, "bf16", saturate)
        elif name + SCALE in tensors:
            raise Refused(f"tensor '{name}{SCALE}' is there already; int8 needs the name")
        else:
            out[name], out[name + SCALE] = quantised(name, value)
    return out
