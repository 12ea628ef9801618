# SPDX-License-Identifier: Apache-2.0
"""The autoregressive prior of a model directory (`ar_prior/`, written by stages/ar_prior.py), sampled row by row.

Each row draws from a generator of its own: first how well caption and picture fit, from the better half, then one number
for each code. So an embedding does not depend on the rows beside it.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..context import Text
from ..presets import ArPrior, Run
from ..stages.ar_prior import ArPriorNetwork

FOLDER = "ar_prior"


def build(settings: dict) -> ArPriorNetwork:
    """The network that a config.json tells of."""
    config = ArPrior(
        Run(batch=0, rate=0), width=settings["width"], layers=settings["num_layers"], heads=settings["num_attention_heads"],
        dimensions=settings["dimensions"], buckets=settings["buckets"], dot_buckets=settings["dot_buckets"],
    )
    return ArPriorNetwork(config, settings["embedding_dim"], settings["text_dim"], settings["num_embeddings"])


def load(folder: Path, device: torch.device) -> ArPriorNetwork:
    """The network of a model directory, in f32."""
    network = build(json.loads((folder / FOLDER / "config.json").read_text()))
    weights = load_file(folder / FOLDER / "model.safetensors")
    network.load_state_dict({name: value.float() for name, value in weights.items()})
    return network.to(device).eval().requires_grad_(False)


def pick(chances: Tensor, dice: Tensor) -> Tensor:
    """The bucket [n, 1] of each row of chances [n, buckets] in which its number [n] from 0 to 1 falls."""
    below = (chances.double().cumsum(1) < dice[:, None].double()).sum(1, keepdim=True)
    return below.clamp(max=chances.shape[1] - 1)


@torch.no_grad()
def sample(network: ArPriorNetwork, text: Text, guidance: float, generators: list[torch.Generator]) -> Tensor:
    """Embeddings [n, D]; `text` has the empty caption's rows first, as many, then the captions'."""
    buckets, device, length = network.dot_in.num_embeddings, text.embedding.device, len(network.quantiser.centres)
    dot = torch.cat([torch.randint(buckets // 2, buckets, (1,), generator=each) for each in generators]).to(device)
    dice = torch.stack([torch.rand(length, generator=each) for each in generators]).to(device)
    codes = torch.zeros(len(generators), 0, dtype=torch.long, device=device)
    for at in range(length):
        without, wanted = network(text, dot.repeat(2), codes.repeat(2, 1))[:, -1].float().chunk(2)
        chances = (without + guidance * (wanted - without)).softmax(1)
        codes = torch.cat([codes, pick(chances, dice[:, at])], 1)
    return network.quantiser.decode(codes)
