# SPDX-License-Identifier: Apache-2.0
"""The diffusion prior (unCLIP, section 2.2): from a caption to CLIP's embedding of its picture.

It predicts the embedding itself, normalised value by value; the caption is left out of a tenth of the batch, so that
guidance has something to go away from.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import models
from ..context import Context, Text
from ..diffusion import STEPS, Diffusion, sample, scheduler
from ..loop import pick

CLIP_RANGE = 5.0


def drop(tokens: Tensor, empty: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Replaces a share of the captions [n, L] by the empty one."""
    dropped = torch.rand(len(tokens), generator=generator, device=tokens.device) < share
    return torch.where(dropped[:, None], empty, tokens)


def language(tokens: Tensor, generator: torch.Generator) -> Tensor:
    """One caption [n, L] out of each picture's [n, languages, L]."""
    chosen = torch.randint(tokens.shape[1], (len(tokens),), generator=generator, device=tokens.device)
    return tokens[torch.arange(len(tokens), device=tokens.device), chosen]


class PriorStage:
    name = "prior"

    def __init__(self, context: Context) -> None:
        self.context = context
        self.config = context.preset.prior
        self.run = self.config.run
        self.embeddings = context.embeddings(self.config.scenes)
        self.network = models.prior(self.config, context.preset.clip, context.tokenizer.length).to(context.device)
        known = self.embeddings.float()
        self.network.clip_mean.data.copy_(known.mean(0, keepdim=True))
        self.network.clip_std.data.copy_(known.std(0, keepdim=True))
        self.network.clip_mean.requires_grad_(False)
        self.network.clip_std.requires_grad_(False)
        context.initialise(self.network, self.name)
        self.diffusion = Diffusion("sample", context.device, gamma=1.0, floor=1.0)
        context.maybe_compile(self.network)

    def loss(self, progress: float, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        device, data = self.context.device, self.context.data
        index = pick(len(self.embeddings), self.run.batch, generator).to(device)
        start = (self.embeddings[index].float() - self.network.clip_mean) / self.network.clip_std
        tokens = language(data.tokens[index], generator)
        text = self.context.read(drop(tokens, self.context.empty_tokens, self.config.text_drop, generator))
        step = torch.randint(STEPS, (len(index),), generator=generator, device=device)
        noise = torch.randn(start.shape, generator=generator, device=device)
        noisy = self.diffusion.noise(start, step, noise)
        with self.context.autocast:
            output = self.network(
                noisy, step, proj_embedding=text.embedding, encoder_hidden_states=text.states, attention_mask=text.mask
            ).predicted_image_embedding
        return self.diffusion.loss(output, start, noisy, noise, step), {}


@torch.no_grad()
def sample_prior(
    prior: nn.Module, text: Text, empty: Text, steps: int, guidance: float, generator: torch.Generator, autocast: torch.autocast
) -> Tensor:
    """Embeddings [n, D] as the pipeline samples them; `empty` is the empty caption's text, of one row."""
    count = len(text.embedding)
    embedding = torch.cat([empty.embedding.expand(count, -1), text.embedding])
    states = torch.cat([empty.states.expand(count, -1, -1), text.states])
    mask = torch.cat([empty.mask.expand(count, -1), text.mask])

    def predict(noisy: Tensor, step: Tensor) -> Tensor:
        with autocast:
            output = prior(
                torch.cat([noisy, noisy]), step, proj_embedding=embedding, encoder_hidden_states=states, attention_mask=mask
            ).predicted_image_embedding.float()
        without, with_text = output.chunk(2)
        return without + guidance * (with_text - without)

    noise = torch.randn(text.embedding.shape, generator=generator, device=text.embedding.device)
    found = sample(scheduler("sample", "fixed_small_log", CLIP_RANGE), predict, noise, steps, generator)
    return prior.post_process_latents(found)
