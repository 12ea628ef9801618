# SPDX-License-Identifier: Apache-2.0
"""One module a network: how it is built, and the loss of a batch. loop.Trainer does the rest."""

from __future__ import annotations

from ..context import Context
from ..loop import Stage
from .ar_prior import ArPriorStage
from .clip import ClipStage
from .decoder import DecoderStage
from .prior import PriorStage
from .upsampler import UpsamplerStage


def make(name: str, context: Context) -> Stage:
    """The stage of that name, ready to train; what it builds on must be trained."""
    preset = context.preset
    match name:
        case "clip":
            return ClipStage(context)
        case "prior":
            return PriorStage(context)
        case "ar-prior":
            return ArPriorStage(context)
        case "decoder":
            return DecoderStage(context)
        case "upsampler-1":
            return UpsamplerStage(context, name, preset.upsampler_1, 256)
        case "upsampler-2":
            return UpsamplerStage(context, name, preset.upsampler_2, 1024)
    raise ValueError(f"no stage is called {name}")
