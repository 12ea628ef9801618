# SPDX-License-Identifier: Apache-2.0
"""The model's answers to captions, as pictures of 64, 256 or 1024 pixels: through its diffusers classes, or the engine's command.

Picture i has a generator of its own, seeded seed + i, as in the engine: the same captions and seeds give the same
pictures whatever the batch.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from diffusers import PriorTransformer, UNet2DConditionModel, UNet2DModel, UnCLIPScheduler
from diffusers.pipelines.unclip import UnCLIPTextProjModel
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModelWithProjection

from .. import tokenizer
from ..context import Text, padding_mask
from ..diffusion import sample
from ..directory import settings
from ..drawing import Engine
from ..stages.decoder import decode
from . import priors

PriorKind = Literal["diffusion", "autoregressive", "none"]
SMALL, SIZES = 64, (64, 256, 1024)
ENLARGING = {256: ("super_res", "upsampler-1"), 1024: ("super_res_1024", "upsampler-2")}  # by size: folders' prefix, stage
STEPS = {"prior": 25, "decoder": 25, "upsampler-1": 7, "upsampler-2": 7}  # where the model recommends none, as in the engine
GUIDANCE = {"prior": 4.0, "decoder": 8.0}
PIXELS = {"cpu": 256 * 1024, "cuda": 8 * 1024 * 1024}  # that are enlarged at a time


class Draw(Protocol):
    def __call__(self, captions: list[str], seed: int, size: int = SMALL) -> Tensor:
        """Pictures [n, 3, size, size] in [-1, 1]; `seed` is the first one's."""
        ...


def load(kind: type, folder: Path, device: torch.device):  # noqa: ANN201
    return kind.from_pretrained(folder).to(device, torch.float32).eval().requires_grad_(False)


def numbers(seed: int, count: int) -> list[torch.Generator]:
    """A generator for each of `count` pictures."""
    return [torch.Generator().manual_seed(seed + at) for at in range(count)]


class Upsampler:
    """One upsampler of a model directory, run as UnCLIPPipeline does: `first` for all steps but the last."""

    def __init__(self, folder: Path, size: int, steps: dict[str, int], device: torch.device) -> None:
        name, stage = ENLARGING[size]
        self.first, self.last = (load(UNet2DModel, folder / f"{name}_{part}", device) for part in ("first", "last"))
        for network in (self.first, self.last):
            network.to(memory_format=torch.channels_last)
        self.scheduler = UnCLIPScheduler.from_pretrained(folder / f"{name}_scheduler")
        self.steps, self.device = steps[stage], device

    @torch.no_grad()
    def __call__(self, pictures: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Pictures [n, 3, s, s], or crops of such, to [n, 3, 4 s, 4 s]; row i draws its noise from generators[i]."""
        at_once = max(1, PIXELS[self.device.type] // (4 * pictures.shape[-1]) ** 2)
        parts = (slice(at, at + at_once) for at in range(0, len(pictures), at_once))
        return torch.cat([self.enlarge(pictures[part], generators[part]) for part in parts])

    def enlarge(self, pictures: Tensor, generators: list[torch.Generator]) -> Tensor:
        side = 4 * pictures.shape[-1]
        given = functional.interpolate(
            pictures.to(self.device), size=(side, side), mode="bicubic", antialias=True, align_corners=False
        )

        def predict(current: Tensor, step: Tensor) -> Tensor:
            network = self.last if int(step) == int(self.scheduler.timesteps[-1]) else self.first
            both = torch.cat([current, given], 1).contiguous(memory_format=torch.channels_last)
            with torch.autocast(self.device.type, torch.bfloat16):
                return network(both, step).sample.float()

        start = randn_tensor(given.shape, generators, self.device)
        return sample(self.scheduler, predict, start, self.steps, generators).clamp(-1, 1)


class Model:
    """A model directory, run in batches."""

    def __init__(self, folder: Path, device: torch.device, prior: PriorKind = "diffusion") -> None:
        self.folder, self.device, self.prior_kind = folder, device, prior
        self.tokenizer = tokenizer.load(folder / "tokenizer")
        self.text_encoder = load(CLIPTextModelWithProjection, folder / "text_encoder", device)
        self.prior = load(PriorTransformer, folder / "prior", device)
        self.text_proj = load(UnCLIPTextProjModel, folder / "text_proj", device)
        self.decoder = load(UNet2DConditionModel, folder / "decoder", device).to(memory_format=torch.channels_last)
        self.prior_scheduler = UnCLIPScheduler.from_pretrained(folder / "prior_scheduler")
        self.decoder_scheduler = UnCLIPScheduler.from_pretrained(folder / "decoder_scheduler")
        file = folder / "unclip.json"
        recommended = settings(file) if file.exists() else {}
        self.steps, self.guidance = STEPS | recommended.get("steps", {}), GUIDANCE | recommended.get("guidance", {})
        self.autocast = torch.autocast(device.type, torch.bfloat16)
        self.upsamplers: dict[int, Upsampler] = {}

    @cached_property
    def autoregressive(self) -> priors.ArPriorNetwork:
        return priors.load(self.folder, self.device)

    def upsampler(self, size: int) -> Upsampler:
        """The one that ends at `size` pixels."""
        if size not in self.upsamplers:
            self.upsamplers[size] = Upsampler(self.folder, size, self.steps, self.device)
        return self.upsamplers[size]

    def read(self, captions: list[str]) -> Text:
        """The empty caption's text first, as many times, then the captions'."""
        tokens = torch.from_numpy(self.tokenizer.encode([""] * len(captions) + captions)).to(self.device)
        out = self.text_encoder(tokens.long())
        return Text(out.text_embeds, out.last_hidden_state, padding_mask(tokens, self.tokenizer.end))

    def embed(self, text: Text, count: int, generators: list[torch.Generator]) -> Tensor:
        """Picture embeddings [n, D] from the prior, or the text's own, as long as a picture's, where there is none."""
        if self.prior_kind == "none":
            length = (self.prior.clip_mean.square() + self.prior.clip_std.square()).sum().sqrt()
            return length * functional.normalize(text.embedding[count:])
        if self.prior_kind == "autoregressive":
            return priors.sample(self.autoregressive, text, self.guidance["prior"], generators)

        def predict(current: Tensor, step: Tensor) -> Tensor:
            with self.autocast:
                output = self.prior(
                    torch.cat([current, current]), step, proj_embedding=text.embedding,
                    encoder_hidden_states=text.states, attention_mask=text.mask,
                ).predicted_image_embedding.float()
            without, wanted = output.chunk(2)
            return without + self.guidance["prior"] * (wanted - without)

        start = randn_tensor((count, text.embedding.shape[1]), generators, self.device)
        found = sample(self.prior_scheduler, predict, start, self.steps["prior"], generators)
        return self.prior.post_process_latents(found)

    @torch.no_grad()
    def __call__(self, captions: list[str], seed: int, size: int = SMALL) -> Tensor:
        generators = numbers(seed, len(captions))
        current = self.decode(captions, generators)
        for larger in ENLARGING:
            if larger <= size:
                current = self.upsampler(larger)(current, generators)
        return current

    def decode(self, captions: list[str], generators: list[torch.Generator]) -> Tensor:
        count = len(captions)
        text = self.read(captions)
        embedding = self.embed(text, count, generators)
        unknown = self.text_proj.learned_classifier_free_guidance_embeddings.expand(count, -1)
        both = torch.cat([unknown, embedding])

        def predict(current: Tensor, step: Tensor) -> Tensor:
            with self.autocast:
                output = decode(self.text_proj, self.decoder, torch.cat([current, current]), step, both, text).float()
            without, wanted = output.chunk(2)
            guess, variance = wanted.chunk(2, 1)
            base = without[:, : guess.shape[1]]
            return torch.cat([base + self.guidance["decoder"] * (guess - base), variance], 1)

        start = randn_tensor((count, 3, 64, 64), generators, self.device)
        return sample(self.decoder_scheduler, predict, start, self.steps["decoder"], generators).clamp(-1, 1)


class Through:
    """The same through `unclip generate`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __call__(self, captions: list[str], seed: int, size: int = SMALL) -> Tensor:
        return torch.stack([self.one(caption, seed + at, size) for at, caption in enumerate(captions)])

    def one(self, caption: str, seed: int, size: int) -> Tensor:
        pixels = np.asarray(self.engine.draw(caption, seed, size), np.float32)
        return torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1


def as_images(pictures: Tensor) -> list[Image.Image]:
    pixels = ((pictures + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(each) for each in pixels]
