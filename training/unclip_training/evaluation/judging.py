# SPDX-License-Identifier: Apache-2.0
"""Trains judges when they are missing, and lets them, or the nearest rendering, mark pictures of a set of prompts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..context import Context
from ..data.compositor import on_device
from ..data.sprites import Atlas
from ..loop import Budget, Stage, Trainer, is_met
from ..presets import Run
from ..train import log
from . import metrics
from .judges import Classifier, ClassifierStage, Lessons, SecondClip, SecondClipStage, lessons
from .metrics import Seen, look
from .nearest import nearest
from .pictures import SMALL, Draw
from .prompts import Prompts

SEED = 0  # of the first picture of a set


def train(context: Context, stage: Stage) -> None:
    """To the end of the stage's budget, from its checkpoint where there is one."""
    torch.manual_seed(1)
    trainer = Trainer(stage, context.checkpoint(stage.name), context.device, log)
    if trainer.checkpoint.exists():
        trainer.restore()
    trainer.fit(Budget())


class Judges:
    """Both judges, trained when they are not there yet or for less than is asked for."""

    def __init__(self, context: Context, run: Run, scenes: int) -> None:
        taught: Lessons | None = None
        for stage_type in (ClassifierStage, SecondClipStage):
            if not is_met(context.checkpoint(stage_type.name), run):
                taught = taught or lessons(context, scenes)
                train(context, stage_type(context, taught, run))
        world = context.world(context.concepts)
        self.classifier = context.frozen(Classifier(len(world.things()), len(world.styles)), ClassifierStage.name)
        tokens = context.tokenizer
        self.weights = {stage.name: context.digest(stage.name)[:16] for stage in (ClassifierStage, SecondClipStage)}
        self.clip = context.frozen(SecondClip(len(tokens.vocabulary), tokens.end), SecondClipStage.name)

    def look(self, pictures: Tensor) -> Seen:
        return look(pictures, self.classifier, self.clip)


def draw(model: Draw, captions: list[str], seed: int = SEED, batch: int = 16, size: int = SMALL) -> Tensor:
    """Pictures on the host; number i is of seed + i."""
    parts = [model(captions[at : at + batch], seed + at, size).cpu() for at in range(0, len(captions), batch)]
    pictures = torch.cat(parts)
    for at, caption in enumerate(captions):
        if not pictures[at].isfinite().all():
            raise SystemExit(f"evaluate: the picture of '{caption}', seed {seed + at}, holds what is no number; nothing is judged")
    return pictures


@dataclass
class Examiner:
    """Marks pictures: by the judges, or without them by the nearest rendering alone."""

    context: Context
    atlas: Atlas
    judges: Judges | None
    batch: int = 16  # pictures drawn at a time

    def real(self, asked: Prompts) -> Tensor:
        """The scenes as the data draws them."""
        return on_device(asked.table, [self.atlas], 1, torch.device("cpu")).draw(torch.arange(len(asked)), SMALL)

    def draw(self, model: Draw, asked: Prompts, language: int = 0, seed: int = SEED) -> Tensor:
        return draw(model, [said[language] for said in asked.captions], seed, self.batch)

    def mark(self, asked: Prompts, each: list[Tensor], real: Tensor) -> dict:
        """Figures of pictures of icons drawn from one seed or several: the mean over the seeds, and their diversity."""
        if self.judges is None:
            found = [nearest(self.context, self.atlas, asked, pictures) for pictures in each]
        else:
            seen, ceiling = [self.judges.look(pictures) for pictures in each], self.judges.look(real)
            found = [self.judged(asked, some, ceiling) for some in seen]
        values = {name: [marks[name] for marks in found if marks[name] is not None] for name in found[0]}
        means = {name: round(sum(some) / len(some), 4) if some else None for name, some in values.items()}
        if self.judges and len(each) > 1:
            means["diversity"] = metrics.diversity(seen)
        return means

    def judged(self, asked: Prompts, seen: Seen, ceiling: Seen) -> dict:
        known = metrics.recognition(seen, asked, asked.category(self.context))
        marks = {name: known[name] for name in ("top1", "top5")} | metrics.matching(seen, self.judges.clip, asked)
        return marks | {"kid": metrics.kid(seen.features, ceiling.features)}
