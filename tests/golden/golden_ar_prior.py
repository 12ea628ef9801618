"""The autoregressive prior of the test model mini, against its twin in training/: logits of given codes, and embeddings
sampled with guidance, each from a generator of its own.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from golden_networks import Parts, finish
from inputs import Inputs, model_folder
from twin import Text, priors

ROWS, SEED, GUIDANCE = 3, 7, 2.5
MARGIN = 1e-4  # a number this near to a bucket's edge could fall to either side by rounding


def logits(network: priors.ArPriorNetwork) -> None:
    given = Inputs("net-mini-ar_prior")
    length, quantiser = network.length, network.quantiser
    dimensions, buckets = quantiser.centres.shape
    text = Text(
        given.add("text_embed", ROWS, network.embedding_in.in_features),
        given.add("text_states", ROWS, length, network.text_in.in_features),
        given.mask("mask", length, 5, 1, length),
    )
    draw = partial(torch.randint, generator=torch.Generator().manual_seed(SEED))
    dot = given.put("dot", draw(network.dot_in.num_embeddings, (ROWS,)))
    codes = given.put("codes", draw(buckets, (ROWS, dimensions)))
    out = {"logits": network(text, dot, codes[:, :-1]), "embeddings": quantiser.decode(codes)}
    finish(given, Parts(network, False), out)


class Watched:
    """Notes the codes that priors.sample picks, and refuses one too near to an edge."""

    def __init__(self) -> None:
        self.codes: list[Tensor] = []

    def pick(self, chances: Tensor, dice: Tensor) -> Tensor:
        distance = (chances.double().cumsum(1) - dice[:, None].double()).abs().min()
        if distance < MARGIN:
            raise ValueError(f"a number is {distance} from an edge: take another seed")
        self.codes.append(Watched.unwatched(chances, dice))
        return self.codes[-1]

    unwatched = staticmethod(priors.pick)


def sampled(network: priors.ArPriorNetwork) -> None:
    """Rows: the negative prompts' texts, then the prompts'."""
    given = Inputs("ar-prior-sample")
    length = network.length
    text = Text(
        given.add("text_embed", 2 * ROWS, network.embedding_in.in_features),
        given.add("text_states", 2 * ROWS, length, network.text_in.in_features),
        given.mask("mask", length, 2, 2, 2, 9, 3, length),
    )
    generators = [torch.Generator().manual_seed(SEED + at) for at in range(ROWS)]
    priors.pick = (watched := Watched()).pick
    embeddings = priors.sample(network, text, GUIDANCE, generators)
    after = torch.stack([torch.rand(2, generator=each) for each in generators])
    out = {"embeddings": embeddings, "codes": torch.cat(watched.codes, 1), "rand_after": after}
    finish(given, Parts(network, False), out, seed=SEED, guidance=GUIDANCE)


def generate() -> None:
    network = priors.load(model_folder("mini"), torch.device("cpu"))
    logits(network)
    sampled(network)
