"""torch's CPU generator: uniform draws bit for bit, normal draws on the scalar and the 16-wide path."""

from __future__ import annotations

import numpy as np
import torch

from store import save

SEEDS = (0, 1, 42, 2**32 - 1, 2**32 + 5, 2**63 - 1)
RAND_COUNTS = (1, 2, 15, 16, 700)
RANDN_COUNTS = (*range(1, 18), 31, 100, 768)
PICTURE = (3, 64, 64)

# Draws in a row from one generator. A scalar draw makes normals in pairs: an odd count leaves one
# for the next scalar draw, past whatever else is drawn in between.
MIXED = (
    ("randn:1", "randn:1", "randn:2", "rand:3", "randn:1"),
    ("randn:3", "rand:5", "randn:16", "randn:1", "rand:1", "randn:5", "randn:17", "randn:2"),
    ("randn:15", "randn:768", "randn:1", "rand:700", "randn:4", "randn:32", "randn:7"),
    ("rand:1", "randn:16", "rand:1", "randn:17", "rand:1", "randn:100", "rand:2"),
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(spec: str, source: torch.Generator) -> torch.Tensor:
    kind, count = spec.split(":")
    return {"rand": torch.rand, "randn": torch.randn}[kind](int(count), generator=source)


def generate() -> None:
    for seed in SEEDS:
        out = {f"out.rand.{n}": draw(f"rand:{n}", generator(seed)) for n in RAND_COUNTS}
        out |= {f"out.randn.{n}": draw(f"randn:{n}", generator(seed)) for n in RANDN_COUNTS}
        for index, specs in enumerate(MIXED):
            source = generator(seed)
            out[f"out.mixed.{index}"] = torch.cat([draw(spec, source) for spec in specs])
        settings = {f"mixed.{index}": specs for index, specs in enumerate(MIXED)}
        save(f"rng-{seed}", out, seed=seed, **settings)
    picture = torch.randn(PICTURE, generator=generator(42))
    save("rng-picture", {"out.randn": np.asarray(picture)}, seed=42)
