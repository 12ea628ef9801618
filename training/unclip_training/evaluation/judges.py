# SPDX-License-Identifier: Apache-2.0
"""The two judges: a convolutional classifier of what a scene shows, and a CLIP of another kind than the model's.

Both see scenes drawn from another seed than training's, held-out combinations among them: they must know what a model
is asked for, also where the model may not. Neither shares a weight, an architecture or a picture with the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..context import Context, padding_mask
from ..data.compositor import Scenes
from ..data.scenes import COLOUR_NAMES, WORDS
from ..data.table import AXES, KINDS, LABELS
from ..presets import Run
from ..stages.clip import contrast, pick_groups

SEED = 1001
TABLES = ((SEED, False), (SEED + 1, True))


class Residual(nn.Module):
    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(given, width, 3, 2, 1, bias=False)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.short = nn.Conv2d(given, width, 2, 2, bias=False)
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norms[0](self.first(x)))
        return functional.relu(self.short(x) + self.norms[1](self.second(y)))


def trunk(widths: tuple[int, ...], out: int) -> nn.Sequential:
    """Pictures at 64 to vectors [n, out]; positions are kept to the end."""
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, 1, 1)]
    layers += [Residual(given, width) for given, width in zip(widths, widths[1:], strict=False)]
    side = 64 >> (len(widths) - 1)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * side * side, out), nn.ReLU())


class Classifier(nn.Module):
    """Logits for each column of table.LABELS."""

    def __init__(self, things: int, styles: int, width: int = 512) -> None:
        super().__init__()
        self.trunk = trunk((24, 48, 96, 160, 256), width)
        sizes = {
            "kind": len(KINDS), "first": things + 1, "second": things + 1, "relation": len(AXES), "count": 6,
            "background": len(COLOUR_NAMES), "first_colour": len(COLOUR_NAMES) + 1,
            "second_colour": len(COLOUR_NAMES) + 1, "word": len(WORDS) + 1, "style": styles,
        }
        self.heads = nn.ModuleDict({name: nn.Linear(width, sizes[name]) for name in LABELS})

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        features = self.trunk(pictures)
        return {name: head(features) for name, head in self.heads.items()} | {"features": features}


class SecondClip(nn.Module):
    """A convolutional picture encoder and a bidirectional recurrent text encoder."""

    def __init__(self, vocabulary: int, end: int, width: int = 192) -> None:
        super().__init__()
        self.end = end
        self.image = nn.Sequential(trunk((32, 64, 96, 128, 192), 384), nn.Linear(384, width))
        self.words = nn.Embedding(vocabulary, width)
        self.reader = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.text_out = nn.Linear(4 * width, width)
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    def see(self, pictures: Tensor) -> Tensor:
        return functional.normalize(self.image(pictures).float(), dim=-1)

    def read(self, tokens: Tensor) -> Tensor:
        states, _ = self.reader(self.words(tokens))
        mask = padding_mask(tokens, self.end)[..., None]
        largest = states.masked_fill(~mask, -1e4).max(1).values
        mean = (states * mask).sum(1) / mask.sum(1)
        return functional.normalize(self.text_out(torch.cat([largest, mean], -1)).float(), dim=-1)


@dataclass
class Lessons:
    """What judges learn from: scenes free of held-out combinations, and others."""

    parts: tuple[Scenes, ...]

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Scenes, Tensor]:
        """One of the parts, and which of its scenes; every fourth batch is of the second."""
        part = self.parts[generator.initial_seed() % 4 == 0]
        return part, pick_groups(len(part), part.group, batch, generator)


def lessons(context: Context, count: int) -> Lessons:
    concepts, size = context.concepts, context.preset.data.atlas
    return Lessons(tuple(context.open_scenes(concepts, size, seed, count, held_out) for seed, held_out in TABLES))


def blemish(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Blurs some and adds noise to all a little, as models do; a judge should look past it."""
    blurred = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    amount = torch.rand((len(pictures), 1, 1, 1), generator=generator, device=pictures.device)
    noise = torch.randn(pictures.shape, generator=generator, device=pictures.device)
    return pictures + amount * (blurred - pictures) + 0.05 * amount * noise


def words(logits: Tensor, wanted: Tensor) -> Tensor:
    """The loss of signs alone: among all scenes, most of which have no word, they would hardly count."""
    each = functional.cross_entropy(logits, wanted, reduction="none")
    return (each * (wanted > 0)).sum() / (wanted > 0).sum().clamp(min=1)


class ClassifierStage:
    name = "judge-classifier"

    def __init__(self, context: Context, taught: Lessons, run: Run) -> None:
        self.context, self.taught, self.run = context, taught, run
        world = context.world(context.concepts)
        self.network = Classifier(len(world.things()), len(world.styles)).to(context.device)

    def loss(self, progress: float, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        part, index = self.taught.draw(self.run.batch, generator)
        with self.context.autocast:
            found = self.network(blemish(part.draw(index, 64), generator))
        labels = part.labels[index.to(self.context.device)].long()
        losses = [functional.cross_entropy(found[name].float(), labels[:, at]) for at, name in enumerate(LABELS)]
        losses.append(words(found["word"].float(), labels[:, LABELS.index("word")]))
        right = (found["first"].argmax(1) == labels[:, LABELS.index("first")]).float().mean()
        return torch.stack(losses).sum(), {"first": right}


class SecondClipStage:
    name = "judge-clip"

    def __init__(self, context: Context, taught: Lessons, run: Run) -> None:
        self.context, self.taught, self.run = context, taught, run
        tokens = context.tokenizer
        self.network = SecondClip(len(tokens.vocabulary), tokens.end).to(context.device)

    def loss(self, progress: float, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        part, index = self.taught.draw(self.run.batch, generator)
        there = index.to(self.context.device)
        tokens = part.tokens[there].long()
        with self.context.autocast:
            image = self.network.see(blemish(part.draw(index, 64), generator))
            text = self.network.read(tokens.flatten(0, 1)).view(*tokens.shape[:2], -1)
        scale = self.network.log_scale.clamp(max=4.6).exp()
        meaning = part.meaning[there]
        same = (meaning[:, None] == meaning[None]) & ~torch.eye(len(index), dtype=torch.bool, device=meaning.device)
        losses = [contrast(image, text[:, at], scale, same) for at in range(text.shape[1])]
        return torch.stack(losses).mean(), {}
