"""Whole pictures: `unclip generate` beside UnCLIPPipeline, of Karlo's size and of the shipped model."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from . import karlo
from .process import Side, stolen_seconds
from .settings import Settings

PROMPT = "a red heart"
SIZE = 256  # UnCLIPPipeline ends there
KARLO_GUIDANCE = (4.0, 8.0)


class Generated:
    """What one call of `unclip generate` did."""

    def __init__(self, settings: Settings, model: Path, seed: int, count: int, steps: tuple[int, int, int]) -> None:
        self.folder = settings.model / "pictures"
        prior, decoder, upsampler = map(str, steps)
        command = [
            *(str(settings.programs / "unclip"), "generate", PROMPT, "--model", str(model), "--json", "--quiet"),
            *("--size", str(SIZE), "--n", str(count), "--seed", str(seed), "--out", str(self.folder)),
            *("--dtype", settings.dtype, "--threads", str(settings.threads)),
            *("--packed", str(settings.packed())),
            *("--steps-prior", prior, "--steps-decoder", decoder, "--steps-upsampler-1", upsampler),
            *("--guidance-prior", str(guidance(model)[0]), "--guidance-decoder", str(guidance(model)[1])),
        ]
        begin = time.perf_counter()
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=settings.environment)
        self.wall = time.perf_counter() - begin
        record = json.loads(out.stdout)
        self.load = sum(record["load_ms"].values()) / 1000
        self.compute = sum(record["compute_ms"].values()) / 1000
        self.stages = {stage: ms / 1000 for stage, ms in record["compute_ms"].items()}
        self.pictures = [np.asarray(Image.open(image["path"]).convert("RGB")) for image in record["images"]]


def guidance(model: Path) -> tuple[float, float]:
    """The model's own, or Karlo's."""
    card = model / "unclip.json"
    if not card.exists():
        return KARLO_GUIDANCE
    own = json.loads(card.read_text())["guidance"]
    return own["prior"], own["decoder"]


def pipeline(settings: Settings, model: Path, steps: tuple[int, int, int], layout: str) -> Side:
    command = [
        *(sys.executable, "-m", "engine_bench.pipeline_side", str(model), PROMPT, "--layout", layout),
        *("--dtype", settings.dtype, "--threads", str(settings.threads), "--steps", *map(str, steps)),
        *("--guidance", *map(str, guidance(model))),
    ]
    return Side(command, settings.environment)


def psnr(ours: np.ndarray, theirs: np.ndarray) -> float:
    error = np.mean((ours.astype(np.float64) - theirs.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def run_karlo(settings: Settings) -> dict[str, object]:
    """One picture of Karlo's size; loading is told apart."""
    karlo.write_pipeline(settings.model, settings.dtype)
    side = pipeline(settings, settings.model, settings.steps, "channels_last")
    try:
        stolen = stolen_seconds()
        ours = Generated(settings, settings.model, 1, 1, settings.steps)
        theirs = float(str(side.ask(f"1 1 {settings.model / 'output.diffusers'}")["seconds"]))
        stolen = stolen_seconds() - stolen
    finally:
        side.kill()
    return {
        "ratio": theirs / ours.compute,
        "seconds": ours.compute,
        "seconds_diffusers": theirs,
        "seconds_load": ours.load,
        "seconds_process": ours.wall,
        "stages": ours.stages,
        "steps": list(settings.steps),
        "seconds_stolen": stolen,
    }


def run_small(settings: Settings) -> dict[str, object]:
    """The shipped model, one picture at a time and as a batch; both sides at the model's own settings."""
    card = json.loads((settings.small / "unclip.json").read_text())
    steps = (card["steps"]["prior"], card["steps"]["decoder"], card["steps"]["upsampler-1"])
    begin = time.perf_counter()
    side = pipeline(settings, settings.small, steps, "channels_last")
    output = settings.model / "output.diffusers"
    side.ask(f"1 1 {output}")
    first_theirs = time.perf_counter() - begin
    single_ours, single_theirs, walls, decibels = [], [], [], []
    try:
        for seed in range(1, 1 + settings.pictures):
            ours = Generated(settings, settings.small, seed, 1, steps)
            single_ours.append(ours.compute)
            walls.append(ours.wall)
            single_theirs.append(float(str(side.ask(f"{seed} 1 {output}")["seconds"])))
            theirs = np.fromfile(output, dtype=np.uint8).reshape(ours.pictures[0].shape)
            decibels.append(psnr(ours.pictures[0], theirs))
        batch = Generated(settings, settings.small, 1, settings.pictures, steps)
        batch_theirs = float(str(side.ask(f"1 {settings.pictures} {output}")["seconds"]))
    finally:
        side.kill()
    return {
        "ratio": median(single_theirs) / median(single_ours),
        "ratio_batch": batch_theirs / batch.compute,
        "seconds": median(single_ours),
        "seconds_diffusers": median(single_theirs),
        "batch": settings.pictures,
        "seconds_batch": batch.compute,
        "seconds_batch_diffusers": batch_theirs,
        "seconds_first_picture": median(walls),
        "seconds_first_picture_diffusers": first_theirs,
        "psnr": median(decibels),
    }
