# SPDX-License-Identifier: Apache-2.0
"""The sets of prompts.py in both languages: drawn, marked, compared with real pictures, and laid out on sheets."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..drawing import sheet
from ..train import log
from . import metrics
from .judging import SEED, Examiner, Judges
from .metrics import Seen
from .nearest import nearest
from .pictures import Draw, as_images
from .prompts import Prompts, prompts

SHEET_COLUMNS = 10
LANGUAGES = ("en", "zh")
ICONS = ("seen", "held_out")  # sets of one icon each
OTHER_SEED = 10_000  # between the pictures of one prompt


@dataclass
class Sets:
    """Examines sets one after the other, and keeps the features of all their pictures for one kernel distance."""

    examiner: Examiner
    model: Draw
    seeds: int = 2
    sheets: Path | None = None
    features: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # of made and of real pictures

    def examine(self, name: str, count: int) -> dict:
        asked = prompts(self.examiner.context, name, count)
        started = time.monotonic()
        drawn = [self.examiner.draw(self.model, asked, at) for at in range(len(LANGUAGES))]
        seconds = (time.monotonic() - started) / (2 * len(asked))
        real = self.examiner.real(asked)
        pictures = dict(zip((*LANGUAGES, "ceiling"), (*drawn, real), strict=True))
        found: dict = {"prompts": len(asked), "seconds_a_picture": round(seconds, 3)} | {key: {} for key in pictures}
        if self.examiner.judges:
            found |= self.judge(name, asked, pictures, self.examiner.judges)
        if name in ICONS:
            for key, some in pictures.items():
                found[key] |= nearest(self.examiner.context, self.examiner.atlas, asked, some)
        if self.sheets:
            write_sheets(self.sheets, name, asked, {"en": drawn[0], "zh": drawn[1], "real": real})
        log(f"{name}: {json.dumps(found['en'])}")
        return found

    def judge(self, name: str, asked: Prompts, pictures: dict[str, Tensor], judges: Judges) -> dict:
        seen = {key: judges.look(some) for key, some in pictures.items()}
        found: dict = {key: self.figures(name, some, asked, judges) for key, some in seen.items()}
        found["agreement"] = metrics.agreement(seen["en"], seen["zh"])
        found["kid_64"] = metrics.kid(seen["en"].features, seen["ceiling"].features)
        self.features.append((seen["en"].features, seen["ceiling"].features))
        if name == "seen" and self.seeds > 1:
            seeds = [SEED + OTHER_SEED * at for at in range(1, self.seeds)]
            others = [judges.look(self.examiner.draw(self.model, asked, 0, seed)) for seed in seeds]
            found["diversity"] = metrics.diversity([seen["en"], *others])
        return found

    def figures(self, name: str, seen: Seen, asked: Prompts, judges: Judges) -> dict:
        found: dict = metrics.matching(seen, judges.clip, asked)
        if name in ICONS:
            found |= metrics.recognition(seen, asked, asked.category(self.examiner.context))
        elif name in ("relations", "held_out_pairs"):
            found |= metrics.relations(seen, asked) | {"background": metrics.label(seen, asked, "background")}
        elif name == "counts":
            found |= {"count": metrics.label(seen, asked, "count"), "top1": metrics.label(seen, asked, "first")}
        elif name == "colours":
            found |= {"colour": metrics.label(seen, asked, "first_colour"), "top1": metrics.label(seen, asked, "first")}
        else:
            found |= {"text": metrics.label(seen, asked, "word"), "colour": metrics.label(seen, asked, "first_colour")}
        return found

    def kid(self) -> float | None:
        """Over the English pictures of all sets examined so far."""
        if not self.features:
            return None
        return metrics.kid(*(torch.cat([pair[at] for pair in self.features]) for at in range(2)))


def write_sheets(folder: Path, name: str, asked: Prompts, pictures: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for key, some in pictures.items():
        sheet(as_images(some), SHEET_COLUMNS, some.shape[-1]).save(folder / f"{name}-{key}.png")
    said = (f"{at}\t{english}\t{chinese}\n" for at, (english, chinese) in enumerate(asked.captions))
    (folder / f"{name}.tsv").write_text("".join(said))
