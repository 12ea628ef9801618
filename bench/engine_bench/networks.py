"""One forward pass of each network, here and in diffusers, alternately in one run."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from . import karlo, shapes
from .process import Side, stolen_seconds
from .settings import Settings

# Samples in a pass: both halves of guidance, where there is guidance.
# …-step: a step of sampling after the first, for which the engine has read the text and diffusers reads it again.
BATCH = {
    "text": 2,
    "prior": 2,
    "prior-step": 2,
    "decoder": 2,
    "decoder-step": 2,
    "upsampler-1": 1,
    "upsampler-2": 1,
    "image": 1,
}
NETWORKS = tuple(BATCH)
PEAK_SECONDS = 0.25  # for each shape


@dataclass
class Times:
    engine: list[float] = field(default_factory=list)
    diffusers: list[float] = field(default_factory=list)
    compiled: list[float] = field(default_factory=list)


@dataclass
class Result:
    network: str
    batch: int
    operations: int
    engine: float  # seconds, as the two below: the median
    diffusers: float
    compiled: float | None
    layout: str
    nmse: float  # of the engine's output
    nmse_diffusers: float  # of diffusers' own in the same dtype
    peak: float  # GFLOP/s
    best_peak: float
    memory: dict[str, int]
    memory_diffusers: dict[str, int]
    weights: int  # bytes
    ready: float
    stolen: float
    shapes: list[dict[str, object]]

    def gflops(self) -> float:
        return self.operations / self.engine * 1e-9

    def record(self) -> dict[str, object]:
        ratio_compiled = {"ratio_compiled": self.compiled / self.engine} if self.compiled else {}
        return {
            "ratio": self.diffusers / self.engine,
            "share_of_peak": self.gflops() / self.peak,
            "nmse": self.nmse,
            **ratio_compiled,
            "batch": self.batch,
            "tflop": self.operations * 1e-12,
            "seconds": self.engine,
            "seconds_diffusers": self.diffusers,
            "seconds_compiled": self.compiled,
            "gflops": self.gflops(),
            "peak_gflops": self.peak,
            "best_peak_gflops": self.best_peak,
            "layout_diffusers": self.layout,
            "nmse_diffusers": self.nmse_diffusers,
            "resident": self.memory["resident"],
            "resident_peak": self.memory["peak"],
            "resident_diffusers": self.memory_diffusers["resident"],
            "weights": self.weights,
            "seconds_to_ready": self.ready,
            "seconds_stolen": self.stolen,
        }


def nmse(output: Path, reference: Path) -> float:
    a, b = (np.fromfile(path, dtype=np.float32).astype(np.float64) for path in (output, reference))
    if a.shape != b.shape:
        raise SystemExit(f"bench/engine: outputs of {a.size} and {b.size} values")
    return float(((a - b) ** 2).sum() / (b**2).sum())


def diffusers_command(settings: Settings, network: str, batch: int, dtype: str, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "engine_bench.diffusers_side", network, str(settings.model)),
        *("--dtype", dtype, "--batch", str(batch), "--threads", str(settings.threads), *more),
    ]


def reference_output(settings: Settings, network: str, batch: int) -> Path:
    """diffusers' output in f32, made when it is missing."""
    path = settings.model / f"reference.{network}.{batch}"
    if not path.exists():
        side = Side(
            diffusers_command(settings, network, batch, "f32", "--layout", "channels_last"), settings.environment
        )
        side.go()
        side.ask(f"save {path}")
        side.close()
    return path


def measure_peak(settings: Settings, wanted: list[str]) -> list[dict[str, object]]:
    command = [str(settings.programs / "bench-onednn"), settings.dtype, str(settings.threads), str(PEAK_SECONDS)]
    lines = subprocess.run(command, input="\n".join(wanted) + "\n", check=True, text=True, stdout=subprocess.PIPE)
    return [json.loads(line) for line in lines.stdout.splitlines()]


def peak_gflops(work: shapes.Work, measured: list[dict[str, object]]) -> float:
    """Of the shapes together, each as often as the network has it."""
    operations = sum(work.shapes[str(m["shape"])] * shapes.shape_operations(str(m["shape"])) for m in measured)
    seconds = sum(work.shapes[str(m["shape"])] * float(str(m["seconds"])) for m in measured)
    return operations / seconds * 1e-9


def prepare(settings: Settings, network: str) -> int:
    """Weights, inputs and the reference: what may be made before the measurement. Returns the batch."""
    batch = settings.batch or BATCH[network]
    karlo.write_network(settings.model, network, settings.dtype)
    karlo.write_inputs(settings.model / f"inputs.{network}", karlo.inputs(network, batch))
    reference_output(settings, network, batch)
    return batch


def engine_command(settings: Settings, network: str) -> list[str]:
    return [
        *(str(settings.programs / "bench-engine"), network, str(karlo.folder(settings.model, network))),
        *(str(settings.model / f"inputs.{network}"), settings.dtype, str(settings.threads)),
        str(settings.packed()),
    ]


def alternate(settings: Settings, engine: Side, diffusers: Side, compiled: Side | None) -> Times:
    times = Times()
    for _ in range(settings.repeat):
        times.engine.append(engine.go())
        times.diffusers.append(diffusers.go())
        if compiled:
            times.compiled.append(compiled.go())
    return times


def run(settings: Settings, network: str) -> Result:
    batch = prepare(settings, network)
    work = shapes.count(network, batch)
    with ExitStack() as stack:

        def start(command: list[str]) -> Side:
            side = Side(command, settings.environment)
            stack.callback(side.kill)
            return side

        engine = start(engine_command(settings, network))
        diffusers = start(diffusers_command(settings, network, batch, settings.dtype))
        layout = str(diffusers.about["layout"])
        compiled = None
        if settings.compile:
            more = ("--layout", layout, "--compile")
            compiled = start(diffusers_command(settings, network, batch, settings.dtype, *more))
        engine.go()
        engine.go()
        stolen = stolen_seconds()
        times = alternate(settings, engine, diffusers, compiled)
        stolen = stolen_seconds() - stolen
        outputs = [settings.model / f"output.{side}" for side in ("engine", "diffusers")]
        for side, output in zip((engine, diffusers), outputs, strict=True):
            side.ask(f"save {output}")
        memory = [side.memory() for side in (engine, diffusers)]
        if settings.profile:
            engine.ask("profile")
    reference = reference_output(settings, network, batch)
    measured = measure_peak(settings, shapes.dominant(work))
    return Result(
        network=network,
        batch=batch,
        operations=work.operations,
        engine=median(times.engine),
        diffusers=median(times.diffusers),
        compiled=median(times.compiled) if compiled else None,
        layout=layout,
        nmse=nmse(outputs[0], reference),
        nmse_diffusers=nmse(outputs[1], reference),
        peak=peak_gflops(work, measured),
        best_peak=max(float(str(m["gflops"])) for m in measured),
        memory=memory[0],
        memory_diffusers=memory[1],
        weights=work.parameters * (2 if settings.dtype == "bf16" else 4),
        ready=float(str(engine.about["ready"])),
        stolen=stolen,
        shapes=measured,
    )
