# SPDX-License-Identifier: Apache-2.0
"""What a setting changes: the priors against each other, and sweeps of guidance and steps. On few seen prompts, in English."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

from ..train import log
from . import priors
from .judging import SEED, Examiner
from .pictures import Model
from .prompts import Prompts, prompts
from .sets import OTHER_SEED

PRIORS = ("diffusion", "autoregressive", "none")  # from the best to the worst, by unCLIP's section 5
ORDERED_BY = ("clip_cosine", "top1")  # the first one tells more of few prompts
SWEEPS = {"guidance": (1.0, 1.5, 2.0, 3.0, 5.0), "steps": (5, 10, 15, 25, 50)}


def marks(examiner: Examiner, model: Model, asked: Prompts, seeds: int) -> dict:
    each = [examiner.draw(model, asked, 0, SEED + OTHER_SEED * at) for at in range(seeds)]
    return examiner.mark(asked, each, examiner.real(asked))


def ablation(examiner: Examiner, model: Model, count: int) -> dict:
    """The figures of each prior (a string says why one has none), and whether they lie in the paper's order."""
    asked, kept, found = prompts(examiner.context, "seen", count), model.prior_kind, {}
    for kind in PRIORS:
        if kind == "autoregressive" and not (model.folder / priors.FOLDER).exists():
            found[kind] = f"the model has no {priors.FOLDER}/"
            continue
        model.prior_kind = kind
        found[kind] = marks(examiner, model, asked, 1)
        log(f"prior {kind}: {json.dumps(found[kind])}")
    model.prior_kind = kept
    return {"prompts": len(asked)} | found | {"order": order(found)}


def order(found: dict) -> dict[str, bool | None]:
    """Whether no prior has less than the next of PRIORS, by each of ORDERED_BY.

    None where a figure is missing, or none tells them apart.
    """
    holds: dict[str, bool | None] = {}
    for name in ORDERED_BY:
        values = [found[kind].get(name) if isinstance(found[kind], dict) else None for kind in PRIORS]
        undecided = None in values or len(set(values)) == 1
        holds[name] = None if undecided else all(better >= worse for better, worse in pairwise(values))
    return holds


@contextmanager
def changed(model: Model, name: str, value: float) -> Iterator[None]:
    """The decoder's guidance, or the steps of both prior and decoder."""
    kept = dict(model.guidance), dict(model.steps)
    if name == "guidance":
        model.guidance["decoder"] = value
    else:
        model.steps |= {"prior": int(value), "decoder": int(value)}
    try:
        yield
    finally:
        model.guidance, model.steps = kept


def sweep(examiner: Examiner, model: Model, name: str, values: tuple[float, ...], count: int, seeds: int) -> list[dict]:
    asked, found = prompts(examiner.context, "seen", count), []
    for value in values:
        with changed(model, name, value):
            found.append({name: value} | marks(examiner, model, asked, seeds))
        log(f"{name} {value}: {json.dumps(found[-1])}")
    return found
