# SPDX-License-Identifier: Apache-2.0
"""Trains any stage: the step, the learning rate, the average of the weights, and checkpoints.

A step draws all its randomness from a generator seeded by (stage, step), and a checkpoint holds all else, so that an
interrupted run goes on exactly as if nothing had happened (on a CPU to the bit, where the budget is in steps).
Checkpoints replace each other in one rename. `pack` makes a small one, of the averaged weights in bf16, in parts.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from .presets import Run

SAVE_EVERY = 300.0  # seconds
REPORT_EVERY = 10.0
SLOW = 10.0  # times the usual: such a step compiled
PART_BYTES = 15 << 20
Log = Callable[[str], None]


class Stage(Protocol):
    """One network (or two that learn together)."""

    name: str
    run: Run
    network: nn.Module

    def loss(self, progress: float, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one batch, and figures worth printing. `progress` goes from 0 to 1."""
        ...


@dataclass
class Budget:
    """When this call has to stop, whatever is left to do."""

    deadline: float = math.inf  # of time.monotonic()

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.deadline

    def allows(self, seconds: float) -> bool:
        return time.monotonic() + seconds <= self.deadline


class Trainer:
    def __init__(self, stage: Stage, checkpoint: Path, device: torch.device, log: Log) -> None:
        self.stage, self.checkpoint, self.device, self.log = stage, checkpoint, device, log
        self.step, self.seconds = 0, 0.0
        self.usual: float | None = None  # seconds a step
        self.cold = 0  # the step at which the optimizer started
        self.parameters = [p for p in stage.network.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=stage.run.rate, betas=(0.9, 0.99), weight_decay=stage.run.weight_decay,
            fused=device.type == "cuda",
        )

    @property
    def progress(self) -> float:
        return self.stage.run.progress(self.step, self.seconds)

    def rate(self) -> float:
        run = self.stage.run
        rising = min(1.0, (self.step - self.cold + 1) / run.warm_up)
        falling = min(1.0, (1 - self.progress) / run.cool_down) if run.cool_down else 1.0
        return run.rate * rising * falling

    def seed(self) -> int:
        digest = hashlib.sha256(f"{self.stage.name}/{self.step}".encode()).digest()
        return int.from_bytes(digest[:7], "little")

    def advance(self, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        run = self.stage.run
        generator.manual_seed(self.seed())
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        loss, figures = self.stage.loss(self.progress, generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, run.clip_norm)
        self.optimizer.step()
        decay = min(run.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)
        self.step += 1
        return loss.detach(), figures

    def fit(self, budget: Budget) -> bool:
        """Trains to the end of the stage's budget or the call's; returns whether the stage is finished."""
        generator = torch.Generator(self.device)
        saved = reported = clock = time.monotonic()
        since, total = self.step, torch.zeros((), device=self.device)
        while self.progress < 1 and not budget.over:
            loss, figures = self.advance(generator)
            total += loss
            now = time.monotonic()
            took, clock = now - clock, now
            self.account(took)
            if now - reported >= REPORT_EVERY or self.progress >= 1 or budget.over:
                self.report(float(total) / (self.step - since), figures, (self.step - since) / (now - reported))
                reported, since = now, self.step
                total.zero_()
            if now - saved >= SAVE_EVERY:
                self.save()
                saved = time.monotonic()
        self.save()
        return self.progress >= 1

    def account(self, took: float) -> None:
        """Counts a step's time unless it compiled something: the first of a call, and any that stands out."""
        if self.usual is None:
            self.usual = math.inf
        elif took <= SLOW * self.usual:
            self.seconds += took
            self.usual = took if math.isinf(self.usual) else self.usual + 0.1 * (took - self.usual)

    def report(self, loss: float, figures: dict[str, Tensor], rate: float) -> None:
        if not math.isfinite(loss):
            raise FloatingPointError(f"{self.stage.name}: the loss is {loss} at step {self.step}")
        extra = "".join(f"  {name} {float(value):.3f}" for name, value in figures.items())
        self.log(
            f"{self.stage.name}: step {self.step}  {100 * self.progress:.1f} %  loss {loss:.4f}{extra}"
            f"  rate {self.rate():.1e}  {rate * self.stage.run.batch:.1f} pictures/s"
        )

    def average_state(self) -> dict[str, Tensor]:
        """The network's state with averaged weights."""
        state = {name: value.detach().clone() for name, value in self.stage.network.state_dict().items()}
        names = [name for name, p in self.stage.network.named_parameters() if p.requires_grad]
        return state | dict(zip(names, self.average, strict=True))

    def save(self) -> None:
        write_atomically(
            self.checkpoint,
            {
                "step": self.step, "seconds": self.seconds, "cold": self.cold,
                "network": self.stage.network.state_dict(), "average": self.average_state(),
                "optimizer": self.optimizer.state_dict(),
            },
        )

    def restore(self) -> None:
        """Goes on where the checkpoint stopped; one without optimizer state (a packed one) warms up anew."""
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.step, self.seconds = state["step"], state["seconds"]
        self.stage.network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state["network"].items()})
        average = state["average"]
        names = [name for name, p in self.stage.network.named_parameters() if p.requires_grad]
        for value, name in zip(self.average, names, strict=True):
            value.copy_(average[name])
        if "optimizer" in state:
            self.optimizer.load_state_dict(state["optimizer"])
            self.cold = state["cold"]
        else:
            self.cold = self.step


def is_met(checkpoint: Path, run: Run) -> bool:
    """Whether a checkpoint has had all of a budget, which may have changed since it was written."""
    if not checkpoint.exists():
        return False
    state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    return run.progress(state["step"], state["seconds"]) >= 1


def pick(length: int, count: int, generator: torch.Generator) -> Tensor:
    """Random numbers [count] below `length`, from the seed of `generator`, on the host: picking waits for no device."""
    host = torch.Generator().manual_seed(generator.initial_seed())
    return torch.randint(length, (count,), generator=host)


def write_atomically(path: Path, state: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def pack(checkpoint: Path, folder: Path) -> list[Path]:
    """Writes the averaged weights in bf16 as NAME.part-I-of-N files of at most PART_BYTES; returns them."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if "average" in state:
        weights = {k: v.bfloat16() if v.is_floating_point() else v for k, v in state["average"].items()}
        state = {key: state[key] for key in ("step", "seconds")} | {"network": weights, "average": weights}
    stream = io.BytesIO()
    torch.save(state, stream)
    content = stream.getvalue()
    count = -(-len(content) // PART_BYTES)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{checkpoint.stem}.part-*"):
        old.unlink()
    paths = [folder / f"{checkpoint.stem}.part-{at + 1}-of-{count}" for at in range(count)]
    for at, path in enumerate(paths):
        path.write_bytes(content[at * PART_BYTES : (at + 1) * PART_BYTES])
    return paths


def unpack(folder: Path, name: str, checkpoint: Path) -> bool:
    """Puts the parts of a checkpoint together again; returns whether there were any."""
    paths = sorted(folder.glob(f"{name}.part-*"), key=lambda p: int(p.name.split("-")[-3]))
    if not paths:
        return False
    count = int(paths[0].name.split("-")[-1])
    if len(paths) != count:
        raise ValueError(f"{folder}: {len(paths)} of the {count} parts of {name} are here")
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    partial = checkpoint.with_suffix(".partial")
    partial.write_bytes(b"".join(path.read_bytes() for path in paths))
    os.replace(partial, checkpoint)
    return True
