# SPDX-License-Identifier: Apache-2.0
"""Merges a LoRA into the decoder's and the prior's linear layers: W += scale * alpha / r * B @ A, in f32.

Names as diffusers and peft write them, after the network (`unet.` or `decoder.`, `prior.`; peft's `base_model.model.`
before it is skipped): LAYER.lora_A.weight and LAYER.lora_B.weight, or LAYER.lora.down.weight and LAYER.lora.up.weight
(also with `lora_A.ADAPTER.weight`), and LAYER.alpha, which is r where it is missing. LAYER is the checkpoint's name, without
`.weight`. Any other name is an error: a LoRA merged by half would be worse than none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor

from . import Refused

NETWORKS = {"unet": "decoder", "decoder": "decoder", "prior": "prior"}
SKIPPED = "base_model.model."
PART = re.compile(
    r"(?P<network>[a-z_]+)\.(?P<layer>.+?)\."
    r"(?:lora_(?P<letter>[AB])(?:\.[A-Za-z0-9_]+)?\.weight|lora\.(?P<word>down|up)\.weight|(?P<alpha>alpha))"
)


@dataclass
class Change:
    """What one layer gets. a: [r, ic], b: [oc, r]."""

    a: Tensor | None = None
    b: Tensor | None = None
    alpha: Tensor | None = None


def parse(tensors: dict[str, Tensor]) -> dict[str, dict[str, Change]]:
    """Folder to layer to change."""
    out: dict[str, dict[str, Change]] = {}
    for key, value in tensors.items():
        found = PART.fullmatch(key.removeprefix(SKIPPED))
        if found is None or found["network"] not in NETWORKS:
            raise Refused(f"the LoRA's '{key}' is not understood; names are such as unet.LAYER.lora_A.weight")
        change = out.setdefault(NETWORKS[found["network"]], {}).setdefault(found["layer"], Change())
        part = "alpha" if found["alpha"] else "a" if "A" == found["letter"] or found["word"] == "down" else "b"
        if getattr(change, part) is not None:
            raise Refused(f"the LoRA's '{key}' is there twice under two names")
        setattr(change, part, value)
    for network, layers in out.items():
        for layer, change in layers.items():
            check(network, layer, change)
    if not out:
        raise Refused("the LoRA holds no tensors")
    return out


def check(network: str, layer: str, change: Change) -> None:
    where = f"the LoRA's {network} layer '{layer}'"
    if change.a is None or change.b is None:
        raise Refused(f"{where} has {'no A (down)' if change.a is None else 'no B (up)'}")
    if change.a.dim() != 2 or change.b.dim() != 2 or change.a.shape[0] != change.b.shape[1] or change.a.shape[0] == 0:
        raise Refused(f"{where}: A {list(change.a.shape)} and B {list(change.b.shape)} are no matrices of one rank")
    if change.alpha is not None and change.alpha.numel() != 1:
        raise Refused(f"{where}: alpha has {change.alpha.numel()} values, not one")


def delta(change: Change, scale: float) -> Tensor:
    rank = change.a.shape[0]
    alpha = rank if change.alpha is None else float(change.alpha)
    return scale * alpha / rank * (change.b.float() @ change.a.float())


def merge(tensors: dict[str, Tensor], network: str, changes: dict[str, Change], scale: float) -> None:
    """Changes the tensors of a network in place of the dict; the dtype stays."""
    for layer, change in changes.items():
        weight = tensors.get(f"{layer}.weight")
        if weight is None:
            raise Refused(f"the LoRA's '{layer}' is no layer of the {network}")
        if weight.dim() != 2:
            raise Refused(f"the LoRA's '{layer}' is no linear layer of the {network}: shape {list(weight.shape)}")
        more = delta(change, scale)
        if more.shape != weight.shape:
            raise Refused(f"the LoRA's '{layer}' changes {list(more.shape)}; the {network}'s is {list(weight.shape)}")
        tensors[f"{layer}.weight"] = (weight.float() + more).to(weight.dtype)
