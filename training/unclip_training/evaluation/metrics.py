# SPDX-License-Identifier: Apache-2.0
"""Figures from what the judges see in pictures. All are shares from 0 to 1 unless they say otherwise."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .judges import Classifier, SecondClip
from .prompts import Prompts


@dataclass(frozen=True)
class Seen:
    """What the judges see in pictures: logits by label, features, and the second CLIP's embeddings."""

    logits: dict[str, Tensor]
    features: Tensor
    embeddings: Tensor

    def best(self, name: str) -> np.ndarray:
        return self.logits[name].argmax(1).numpy()


@torch.no_grad()
def look(pictures: Tensor, classifier: Classifier, clip: SecondClip, batch: int = 256) -> Seen:
    device = next(classifier.parameters()).device
    found = [(classifier(part.to(device)), clip.see(part.to(device))) for part in pictures.split(batch)]
    names = found[0][0].keys()
    logits = {name: torch.cat([each[name].float().cpu() for each, _ in found]) for name in names}
    features = logits.pop("features")
    return Seen(logits, features, torch.cat([embedding.cpu() for _, embedding in found]))


def share(right: np.ndarray) -> float:
    return round(float(np.mean(right)), 4)


def recognition(seen: Seen, prompts: Prompts, categories: list[str]) -> dict:
    wanted = prompts.labels("first")
    top = seen.logits["first"].topk(5).indices.numpy()
    right = top[:, 0] == wanted
    groups: dict[str, list[bool]] = defaultdict(list)
    for category, good in zip(categories, right, strict=True):
        groups[category].append(bool(good))
    return {
        "top1": share(right), "top5": share((top == wanted[:, None]).any(1)), "background": label(seen, prompts, "background"),
        "style": label(seen, prompts, "style"), "top1_by_category": {k: share(np.array(v)) for k, v in sorted(groups.items())},
    }


def label(seen: Seen, prompts: Prompts, name: str) -> float:
    return share(seen.best(name) == prompts.labels(name))


def relations(seen: Seen, prompts: Prompts) -> dict:
    """`relation`: the right axis, and the things in the order asked for rather than the other. `both`: each recognised."""
    first, second, axis = (prompts.labels(name) for name in ("first", "second", "relation"))
    rows = np.arange(len(first))
    chances = {name: seen.logits[name].log_softmax(1).numpy() for name in ("first", "second")}
    for name in ("first_colour", "second_colour"):  # tells things apart that differ in colour alone
        chances[name] = seen.logits[name].log_softmax(1).numpy()
    colours = prompts.labels("first_colour"), prompts.labels("second_colour")

    def chance(one: np.ndarray, other: np.ndarray, one_colour: np.ndarray, other_colour: np.ndarray) -> np.ndarray:
        return (
            chances["first"][rows, one] + chances["second"][rows, other]
            + chances["first_colour"][rows, one_colour] + chances["second_colour"][rows, other_colour]
        )

    in_order = chance(first, second, *colours) > chance(second, first, *colours[::-1])
    lies = seen.best("relation") == axis
    both = (seen.best("first") == first) & (seen.best("second") == second)
    either = (seen.best("first") == first) | (seen.best("second") == second)
    return {"relation": share(in_order & lies), "both": share(both), "either": share(either), "axis": share(lies)}


def matching(seen: Seen, clip: SecondClip, prompts: Prompts) -> dict:
    """How often the second CLIP finds the caption of a picture among all of the set, and the mean cosine."""
    device = next(clip.parameters()).device
    tokens = torch.from_numpy(prompts.table.tokens[:, 0].astype(np.int64)).to(device)
    with torch.no_grad():
        text = clip.read(tokens).cpu()
    cosines = seen.embeddings @ text.T
    found = cosines.argmax(1) == torch.arange(len(cosines))
    return {"clip_retrieval": share(found.numpy()), "clip_cosine": round(float(cosines.diagonal().mean()), 4)}


def agreement(one: Seen, other: Seen) -> dict:
    """Between the pictures of the same scene in two languages, from the same noise."""
    same = (one.best("first") == other.best("first")) & (one.best("background") == other.best("background"))
    cosine = (one.embeddings * other.embeddings).sum(1).mean()
    return {"same_recognition": share(same), "clip_cosine": round(float(cosine), 4)}


def diversity(each: list[Seen]) -> float:
    """One minus the mean cosine between pictures of the same prompt from different seeds."""
    pairs = [(a.embeddings * b.embeddings).sum(1).mean() for at, a in enumerate(each) for b in each[:at]]
    return round(1 - float(torch.stack(pairs).mean()), 4)


def kid(made: Tensor, real: Tensor, group: int = 1) -> float | None:
    """Kernel distance (Binkowski et al. 2018) between the features [n, d] of pictures and real ones; not a share.

    Row i of both shows the same scene, and `group` rows at a time come from one picture. Terms within a group are left
    out, so that the estimate stays unbiased: 0 for equal rows, and a little below 0 by chance. Features are centred on
    the real ones' mean and divided by one number, their deviation, so that figures of two models can be compared.
    """
    if len(made) <= group:
        return None
    centre = real.mean(0)
    deviation = (real - centre).square().mean().sqrt().clamp(min=1e-6)
    a, b = (made - centre) / deviation, (real - centre) / deviation
    picture = torch.arange(len(a)) // group
    counted = picture[:, None] != picture[None]

    def kernel(one: Tensor, other: Tensor) -> Tensor:
        return ((one @ other.T / one.shape[1] + 1) ** 3)[counted].mean()

    return round(float(kernel(a, a) + kernel(b, b) - 2 * kernel(a, b)), 4)
