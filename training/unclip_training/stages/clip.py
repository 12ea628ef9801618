# SPDX-License-Identifier: Apache-2.0
"""CLIP (Radford et al. 2021) on scenes, in two languages at once, with hard negatives.

Half of a batch are whole groups: scenes that differ in one thing alone. Each picture is matched against the captions
of both languages, and the languages against each other, so that they come to mean the same. Scenes that mean the same
are no negatives of each other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import models
from ..context import Context
from ..loop import pick

MAX_SCALE = math.log(100)
LANGUAGE_WEIGHT = 0.5


class ClipNetwork(nn.Module):
    def __init__(self, text: nn.Module, image: nn.Module) -> None:
        super().__init__()
        self.text, self.image = text, image
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))


def contrast(queries: Tensor, keys: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """Symmetric InfoNCE; `same` [n, n] marks pairs that may not count against each other."""
    logits = (scale * queries @ keys.T).masked_fill(same, -torch.inf)
    target = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def pick_groups(length: int, group: int, batch: int, generator: torch.Generator) -> Tensor:
    """As loop.pick, but half of it whole groups."""
    groups = batch // (2 * group) if group > 1 else 0
    picked = pick(length, batch - groups * (group - 1), generator)
    first = picked[:groups, None] // group * group
    return torch.cat([(first + torch.arange(group)).flatten(), picked[groups:]])


class ClipStage:
    name = "clip"

    def __init__(self, context: Context) -> None:
        self.context = context
        self.run = context.preset.clip.run
        self.network = ClipNetwork(context.new_text_encoder(), models.image_encoder(context.preset.clip)).to(context.device)
        context.initialise(self.network, self.name)
        context.maybe_compile(self.network.text)
        context.maybe_compile(self.network.image)

    def loss(self, progress: float, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        data = self.context.data
        index = pick_groups(len(data), data.group, self.run.batch, generator)
        pictures = data.draw(index, 64)
        index = index.to(self.context.device)
        tokens = data.tokens[index].long()
        with self.context.autocast:
            image = self.network.image(pictures).image_embeds
            text = self.network.text(tokens.flatten(0, 1)).text_embeds
        image = functional.normalize(image.float(), dim=-1)
        text = functional.normalize(text.float(), dim=-1).view(*tokens.shape[:2], -1)
        scale = self.network.log_scale.clamp(max=MAX_SCALE).exp()
        meaning = data.meaning[index]
        same = (meaning[:, None] == meaning[None]) & ~torch.eye(len(index), dtype=torch.bool, device=meaning.device)
        loss = (contrast(image, text[:, 0], scale, same) + contrast(image, text[:, 1], scale, same)) / 2
        loss = loss + LANGUAGE_WEIGHT * contrast(text[:, 0], text[:, 1], scale, same)
        matched = (image @ text[:, 0].T).masked_fill(same, -1).argmax(1)
        found = (matched == torch.arange(len(index), device=matched.device)).float().mean()
        return loss, {"matched": found}
