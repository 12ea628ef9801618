# SPDX-License-Identifier: Apache-2.0
"""The decoder (unCLIP, section 2.1): from CLIP's embedding of a picture and its caption to 64 x 64 pixels.

The embedding is left out of a tenth of the batch and the caption of half of it. Two things make the embeddings of
training more like those of use, which the prior samples: a little noise, and a share that the prior did sample.
Pictures of 32 pixels come first, which are four times cheaper and teach colours and places.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import models
from ..adopt import old_encoders, realign
from ..context import Context, Text
from ..diffusion import STEPS, Diffusion
from ..loop import pick
from .prior import drop, language, sample_prior

SMALL, FULL = 32, 64
REALIGNED = 4096  # pictures are compared
WHITENING_FLOOR = 1e-3  # of the largest variance


class DecoderNetwork(nn.Module):
    def __init__(self, text_proj: nn.Module, unet: nn.Module) -> None:
        super().__init__()
        self.text_proj, self.unet = text_proj, unet


@torch.no_grad()
def whiten(linear: nn.Linear, embeddings: Tensor) -> None:
    """Sets initial weights that see the embedding whitened: embeddings of one CLIP differ little, but in every direction."""
    mean = embeddings.mean(0)
    variance, directions = torch.linalg.eigh(torch.cov(embeddings.T))
    variance = variance.clamp(min=WHITENING_FLOOR * float(variance.max()))
    whitening = (directions / variance.sqrt()) @ directions.T
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(linear.weight.shape, generator=generator).to(embeddings.device) / embeddings.shape[1] ** 0.5
    linear.weight.copy_(mixing @ whitening)
    linear.bias.copy_(-(linear.weight @ mean))


@torch.no_grad()
def realign_to(context: Context, text_proj: nn.Module, known: Tensor) -> None:
    """Makes a decoder that started from a model read the embeddings of the CLIP that learnt on (adopt.py)."""
    count = min(REALIGNED, len(known))
    old_text, old_image = old_encoders(context.model, context.device)
    pictures, embeddings, states = [], [], []
    for index in torch.arange(count).split(256):
        tokens = context.data.tokens[index.to(context.device)].flatten(0, 1)
        with context.autocast:
            pictures.append(old_image(context.data.draw(index, FULL)).image_embeds.float())
            old = old_text(tokens.long())
        new = context.read(tokens)
        embeddings.append(torch.stack([new.embedding, old.text_embeds.float()]))
        states.append(torch.stack([new.states[new.mask], old.last_hidden_state.float()[new.mask]]))
    realign(text_proj, (known[:count], torch.cat(pictures)), tuple(torch.cat(embeddings, 1)), tuple(torch.cat(states, 1)))


class DecoderStage:
    name = "decoder"

    def __init__(self, context: Context) -> None:
        self.context = context
        self.config = context.preset.decoder
        self.run = self.config.run
        embedding = context.preset.clip.embedding
        known = context.embeddings(context.preset.prior.scenes).float()
        self.deviation = known.std(0)
        text_proj = models.text_proj(self.config, embedding).to(context.device)
        whiten(text_proj.clip_extra_context_tokens_proj, known)
        whiten(text_proj.clip_image_embeddings_project_to_time_embeddings, known)
        nn.init.normal_(text_proj.learned_classifier_free_guidance_embeddings, std=float(self.deviation.mean()))
        unet = models.decoder(self.config, embedding).to(context.device, memory_format=torch.channels_last)
        nn.init.zeros_(unet.conv_out.weight)
        nn.init.zeros_(unet.conv_out.bias)
        self.network = DecoderNetwork(text_proj, unet)
        context.initialise(self.network, self.name)
        if context.model and context.checkpoint("clip").exists() and not context.checkpoint(self.name).exists():
            realign_to(context, text_proj, known)
        self.diffusion = Diffusion(self.config.prediction, context.device)
        self.empty = context.read(context.empty_tokens[None])
        context.maybe_compile(unet)

    def embed(self, pictures: Tensor, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """The embeddings [n, D] that the batch is decoded from."""
        seen = self.context.see(pictures)
        amount = self.config.embedding_noise * torch.rand((len(seen), 1), generator=generator, device=seen.device)
        seen = seen + amount * self.deviation * torch.randn(seen.shape, generator=generator, device=seen.device)
        count = int(len(seen) * self.config.prior_share)
        if count:
            context = self.context
            seen[:count] = sample_prior(
                context.prior, context.read(tokens[:count]), self.empty, self.config.prior_steps,
                context.preset.prior.guidance, generator, context.autocast,
            )
        return seen

    def loss(self, progress: float, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        config, device, data = self.config, self.context.device, self.context.data
        index = pick(len(data), self.run.batch, generator)
        start = data.draw(index, FULL)
        tokens = language(data.tokens[index.to(device)], generator)
        embedding = self.embed(start, tokens, generator)
        unknown = torch.rand((len(index), 1), generator=generator, device=device) < config.embedding_drop
        embedding = torch.where(unknown, self.network.text_proj.learned_classifier_free_guidance_embeddings, embedding)
        text = self.context.read(drop(tokens, self.context.empty_tokens, config.text_drop, generator))
        if progress < config.small_share:
            start = functional.avg_pool2d(start, FULL // SMALL)
        step = torch.randint(STEPS, (len(index),), generator=generator, device=device)
        noise = torch.randn(start.shape, generator=generator, device=device)
        noisy = self.diffusion.noise(start, step, noise).contiguous(memory_format=torch.channels_last)
        with self.context.autocast:
            output = decode(self.network.text_proj, self.network.unet, noisy, step, embedding, text)
        return self.diffusion.loss(output, start, noisy, noise, step), {}


def decode(text_proj: nn.Module, unet: nn.Module, noisy: Tensor, step: Tensor, embedding: Tensor, text: Text) -> Tensor:
    """The decoder's output, conditioned as the pipeline does it."""
    context, added = text_proj(
        image_embeddings=embedding, prompt_embeds=text.embedding, text_encoder_hidden_states=text.states,
        do_classifier_free_guidance=False,
    )
    mask = functional.pad(text.mask, (text_proj.config.clip_extra_context_tokens, 0), value=True)
    return unet(noisy, step, encoder_hidden_states=context, class_labels=added, attention_mask=mask).sample
