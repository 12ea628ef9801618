# SPDX-License-Identifier: Apache-2.0
"""Every size, rate and budget of training, by preset. docs/training.md says why they are what they are.

A stage ends after its `steps` or its `minutes`, whichever is given; with minutes the learning rate follows the time
spent, so that a session of fixed length is used to its end, whatever the machine's speed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from .data.scenes import Mix
from .diffusion import Prediction

STAGES = ("tokenizer", "clip", "prior", "ar-prior", "decoder", "upsampler-1", "upsampler-2")


@dataclass(frozen=True)
class Data:
    concepts: Literal["core", "all"] = "core"
    styles: tuple[str, ...] = ("fluent",)
    scenes: int = 200_000  # in the table; every epoch sees them again
    atlas: int = 256  # side of a sprite
    large_atlas: int = 1024  # for upsampler-2
    large_concepts: int = 200  # as many sprites of each style are rendered at that size
    mix: Mix = field(default_factory=Mix)
    seed: int = 1


@dataclass(frozen=True)
class Tokens:
    merges: int = 3000
    length: int = 32
    captions: int = 40_000  # to learn the merges from


@dataclass(frozen=True)
class Run:
    """How one network is trained. `batch` is in pictures; the rate warms up, holds and falls off at the end."""

    batch: int
    rate: float
    steps: int = 0
    minutes: float = 0.0
    warm_up: int = 200  # steps
    cool_down: float = 0.25  # last share of the budget
    weight_decay: float = 0.01
    ema: float = 0.999
    clip_norm: float = 1.0

    @property
    def is_off(self) -> bool:
        return not (self.steps or self.minutes)

    def progress(self, step: int, seconds: float) -> float:
        """From 0 to 1, where the budget is met."""
        return min(1.0, step / self.steps if self.steps else seconds / (60 * self.minutes))

    def budget(self) -> str:
        return f"{self.steps} steps" if self.steps else f"{self.minutes:g} minutes"


@dataclass(frozen=True)
class Clip:
    run: Run
    width: int = 256
    layers: int = 4
    heads: int = 4
    image_width: int = 192
    image_layers: int = 4
    image_heads: int = 3
    patch: int = 8
    embedding: int = 256


@dataclass(frozen=True)
class Prior:
    run: Run
    layers: int = 5
    heads: int = 4  # of 64
    text_drop: float = 0.1
    scenes: int = 60_000  # whose picture embeddings are kept; both priors learn from them
    guidance: float = 2.0
    steps: int = 25


@dataclass(frozen=True)
class ArPrior:
    run: Run
    width: int = 256
    layers: int = 4
    heads: int = 4
    dimensions: int = 96  # of the embedding, after PCA
    buckets: int = 256
    dot_buckets: int = 64
    text_drop: float = 0.1


@dataclass(frozen=True)
class Decoder:
    run: Run
    channels: tuple[int, ...] = (32, 64, 128, 160)
    blocks: int = 1  # of each level
    context: int = 256
    head: int = 32
    groups: int = 8  # of each norm; a channel to itself would lose its level, and with it plain colours
    prediction: Prediction = "sample"
    embedding_drop: float = 0.1
    text_drop: float = 0.5
    embedding_noise: float = 0.15  # at most, in units of the embedding's deviation
    prior_share: float = 0.25  # of each batch has its embedding from the prior, as in use
    prior_steps: int = 5
    small_share: float = 0.3  # of the budget is spent at 32 pixels
    guidance: float = 2.0
    steps: int = 25


@dataclass(frozen=True)
class Upsampler:
    run: Run
    channels: tuple[int, ...] = (32, 32, 64, 64)
    blocks: int = 1
    groups: int = 8
    prediction: Prediction = "sample"
    crop: int = 128  # norms see whole pictures in use: the less of one they learn from, the more colours drift
    steps: int = 7


@dataclass(frozen=True)
class Preset:
    name: str
    data: Data
    tokens: Tokens
    clip: Clip
    prior: Prior
    ar_prior: ArPrior
    decoder: Decoder
    upsampler_1: Upsampler
    upsampler_2: Upsampler

    def as_dict(self) -> dict:
        return asdict(self)


TINY = Preset(
    "tiny",
    Data(),
    Tokens(),
    Clip(Run(batch=128, rate=8e-4, minutes=60)),
    Prior(Run(batch=256, rate=6e-4, minutes=40)),
    ArPrior(Run(batch=256, rate=6e-4, minutes=40)),
    Decoder(Run(batch=32, rate=8e-4, minutes=1020, ema=0.9995)),
    Upsampler(Run(batch=8, rate=8e-4, minutes=120)),
    Upsampler(Run(batch=8, rate=8e-4, minutes=120), steps=4),
)

SMALL = Preset(
    "small",
    Data(concepts="core", scenes=600_000),
    Tokens(),
    Clip(Run(batch=2048, rate=1e-3, minutes=3)),
    Prior(Run(batch=2048, rate=8e-4, minutes=2), scenes=300_000),
    ArPrior(Run(batch=1024, rate=8e-4, minutes=2)),
    Decoder(Run(batch=512, rate=8e-4, minutes=12), channels=(64, 96, 128, 192)),
    Upsampler(Run(batch=64, rate=1e-3, minutes=3)),
    Upsampler(Run(batch=64, rate=1e-3, minutes=3), steps=4),
)

BASE = Preset(
    "base",
    Data(
        concepts="all", styles=("fluent", "noto", "twemoji"), scenes=1_000_000, large_concepts=300,
        mix=Mix(other_style=0.15),
    ),
    Tokens(merges=4000),
    Clip(Run(batch=4096, rate=1e-3, minutes=3), image_width=256, image_heads=4),
    Prior(Run(batch=4096, rate=8e-4, minutes=1.5), scenes=400_000),
    ArPrior(Run(batch=2048, rate=8e-4, minutes=1.5)),
    Decoder(Run(batch=512, rate=8e-4, minutes=13), channels=(64, 96, 160, 192)),
    Upsampler(Run(batch=64, rate=1e-3, minutes=2.5)),
    Upsampler(Run(batch=64, rate=1e-3, minutes=1.5), channels=(32, 32, 32, 64), steps=4),
)

PRESETS = {preset.name: preset for preset in (TINY, SMALL, BASE)}


def fine_tune(preset: Preset) -> Preset:
    """Half an hour of a processor, to teach a trained model some dozens of pictures: low rates, small batches. The
    upsamplers know edges already and the autoregressive prior would start anew; both are off.
    """

    def part(name: str, minutes: float, rate: float = 1e-4, batch: int = 16, **changes: object):  # noqa: ANN202
        stage = getattr(preset, name)
        run = replace(stage.run, steps=0, minutes=minutes, rate=rate, batch=batch, warm_up=20, cool_down=0.4, ema=0.99)
        return replace(stage, run=run, **changes)

    return replace(
        preset,
        name=f"{preset.name}-fine-tuned",
        clip=part("clip", 3, batch=64),
        prior=part("prior", 4, rate=2e-4, batch=128, scenes=12_288),
        ar_prior=part("ar_prior", 0, batch=64),
        decoder=part("decoder", 15, rate=2e-4, batch=32, small_share=0.0),
        upsampler_1=part("upsampler_1", 0),
        upsampler_2=part("upsampler_2", 0),
    )


def smoke(preset: Preset) -> Preset:
    """The same chain in a few minutes of one processor: few pictures, few steps, small batches."""

    def short(run: Run, steps: int, batch: int) -> Run:
        return run if run.is_off else replace(run, steps=steps, minutes=0.0, batch=min(batch, run.batch), warm_up=10)

    def part(name: str, steps: int, batch: int, **changes: object):  # noqa: ANN202
        stage = getattr(preset, name)
        return replace(stage, run=short(stage.run, steps, batch), **changes)

    return replace(
        preset,
        name=f"{preset.name}-smoke",
        data=replace(preset.data, scenes=4096, large_concepts=8),
        tokens=replace(preset.tokens, captions=4000),
        clip=part("clip", 40, 48),
        prior=part("prior", 30, 48, scenes=1024),
        ar_prior=part("ar_prior", 10, 16),
        decoder=part("decoder", 20, 12),
        upsampler_1=part("upsampler_1", 10, 8),
        upsampler_2=part("upsampler_2", 10, 8),
    )
