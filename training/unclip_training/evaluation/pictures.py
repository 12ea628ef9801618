# SPDX-License-Identifier: Apache-2.0
"""The model's answers to captions, as pictures of 64 pixels: through its diffusers classes, or the engine's command.

Picture i has a generator of its own, seeded seed + i, as in the engine: the same captions and seeds give the same
pictures whatever the batch.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from diffusers import PriorTransformer, UNet2DConditionModel, UnCLIPScheduler
from diffusers.pipelines.unclip import UnCLIPTextProjModel
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModelWithProjection

from .. import tokenizer
from ..context import Text, padding_mask
from ..diffusion import sample
from ..stages.decoder import decode

Draw = Callable[[list[str], int], Tensor]  # captions and the first one's seed to [n, 3, 64, 64]
PriorKind = Literal["diffusion", "none"]


class Model:
    """A model directory, run in batches."""

    def __init__(self, folder: Path, device: torch.device, prior: PriorKind = "diffusion") -> None:
        def load(kind: type, name: str):  # noqa: ANN202
            return kind.from_pretrained(folder / name).to(device, torch.float32).eval().requires_grad_(False)

        self.folder, self.device, self.prior_kind = folder, device, prior
        self.tokenizer = tokenizer.load(folder / "tokenizer")
        self.text_encoder = load(CLIPTextModelWithProjection, "text_encoder")
        self.prior, self.text_proj = load(PriorTransformer, "prior"), load(UnCLIPTextProjModel, "text_proj")
        self.decoder = load(UNet2DConditionModel, "decoder").to(memory_format=torch.channels_last)
        self.prior_scheduler = UnCLIPScheduler.from_pretrained(folder / "prior_scheduler")
        self.decoder_scheduler = UnCLIPScheduler.from_pretrained(folder / "decoder_scheduler")
        settings = json.loads((folder / "unclip.json").read_text())
        self.steps, self.guidance = settings["steps"], settings["guidance"]
        self.autocast = torch.autocast(device.type, torch.bfloat16)

    def read(self, captions: list[str]) -> Text:
        """The empty caption's text first, as many times, then the captions'."""
        tokens = torch.from_numpy(self.tokenizer.encode([""] * len(captions) + captions)).to(self.device)
        out = self.text_encoder(tokens.long())
        return Text(out.text_embeds, out.last_hidden_state, padding_mask(tokens, self.tokenizer.end))

    def embed(self, text: Text, count: int, generators: list[torch.Generator]) -> Tensor:
        """Picture embeddings [n, D] from the prior, or the text's own where there is none."""
        if self.prior_kind == "none":
            return text.embedding[count:]

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
    def __call__(self, captions: list[str], seed: int) -> Tensor:
        count = len(captions)
        generators = [torch.Generator().manual_seed(seed + at) for at in range(count)]
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


class Engine:
    """The same through `unclip generate`, one process a picture."""

    def __init__(self, command: Path, folder: Path) -> None:
        self.command, self.folder = command, folder

    def __call__(self, captions: list[str], seed: int) -> Tensor:
        with tempfile.TemporaryDirectory() as scratch:
            return torch.stack([self.one(caption, seed + at, Path(scratch) / str(at)) for at, caption in enumerate(captions)])

    def one(self, caption: str, seed: int, out: Path) -> Tensor:
        subprocess.run(
            [self.command, "generate", caption, "--model", self.folder.resolve(), "--size", "64", "--seed", str(seed),
             "--out", out, "--quiet"],
            check=True, stdout=subprocess.DEVNULL,
        )
        pixels = np.asarray(Image.open(out / "0.png").convert("RGB"), np.float32)
        return torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1
