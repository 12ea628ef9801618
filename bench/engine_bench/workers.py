"""What a worker of the decoder costs: how soon it is ready, and what two of them on a host hold."""

from __future__ import annotations

import time

from . import karlo
from .networks import BATCH, engine_command
from .process import Side
from .settings import Settings

NETWORK = "decoder"


def prepare(settings: Settings) -> None:
    karlo.write_network(settings.model, NETWORK, settings.dtype)
    karlo.write_inputs(settings.model / f"inputs.{NETWORK}", karlo.inputs(NETWORK, settings.batch or BATCH[NETWORK]))


def start(settings: Settings) -> tuple[Side, float]:
    """A process, and the seconds from its start until it takes work."""
    begin = time.perf_counter()
    side = Side(engine_command(settings, NETWORK), settings.environment)
    return side, time.perf_counter() - begin


def run_ready(settings: Settings) -> dict[str, object]:
    """The first start may pack weights and fill caches; the second finds them."""
    prepare(settings)
    record: dict[str, object] = {}
    for name in ("first", "again"):
        side, ready = start(settings)
        record[f"seconds_{name}"] = ready
        record[f"seconds_{name}_pass"] = side.go()
        record[f"seconds_{name}_next_pass"] = side.go()
        side.close()
    return record


def run_memory(settings: Settings) -> dict[str, object]:
    """Two processes that both have computed: each one's share, and what both hold together."""
    prepare(settings)
    sides = []
    try:
        for _ in range(2):
            side, _ready = start(settings)
            sides.append(side)
            side.go()
        held = [side.memory() for side in sides]
    finally:
        for side in sides:
            side.kill()
    weights = karlo.weights_file(settings.model, NETWORK).stat().st_size
    return {
        "weights": weights,
        "resident": [m["resident"] for m in held],
        "pss": [m["pss"] for m in held],
        "pss_together_over_weights": sum(m["pss"] for m in held) / weights,
    }
