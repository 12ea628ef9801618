"""UnCLIPScheduler: tables, and whole trajectories under given model outputs and noise."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from diffusers import UnCLIPScheduler

from store import save

TABLES = (2, 3, 4, 7, 25, 50, 100, 1000)


@dataclass(frozen=True)
class Case:
    """A scheduler's configuration and the walk it is put through."""

    prediction_type: str
    variance_type: str
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    steps: int = 7
    shape: tuple[int, ...] = (2, 3, 4, 4)
    num_train_timesteps: int = 1000

    def scheduler(self) -> UnCLIPScheduler:
        return UnCLIPScheduler(
            num_train_timesteps=self.num_train_timesteps,
            prediction_type=self.prediction_type,
            variance_type=self.variance_type,
            clip_sample=self.clip_sample,
            clip_sample_range=self.clip_sample_range,
        )


CASES = {
    "prior": Case("sample", "fixed_small_log", clip_sample_range=5.0, steps=25, shape=(2, 24)),
    "prior-clipped": Case("sample", "fixed_small_log", clip_sample_range=0.5, shape=(2, 24)),
    "prior-unclipped": Case("sample", "fixed_small_log", clip_sample=False, shape=(2, 24)),
    "decoder": Case("epsilon", "learned_range", steps=25, shape=(1, 3, 4, 4)),
    "decoder-unclipped": Case("epsilon", "learned_range", clip_sample=False),
    "decoder-sample": Case("sample", "learned_range"),
    "decoder-sample-unclipped": Case("sample", "learned_range", clip_sample=False),
    "super-res": Case("epsilon", "fixed_small_log"),
    "super-res-wide": Case("epsilon", "fixed_small_log", clip_sample_range=2.5),
    "super-res-unclipped": Case("epsilon", "fixed_small_log", clip_sample=False),
    "two-steps": Case("epsilon", "learned_range", steps=2),
    "every-step": Case("epsilon", "learned_range", steps=20, num_train_timesteps=20, shape=(1, 3, 2, 2)),
}


def walk(case: Case) -> dict[str, torch.Tensor]:
    """The pipeline's loop: step i goes to the next timestep of the table, the last to `None`."""
    source = torch.Generator().manual_seed(5)
    channels = case.shape[1] * (2 if case.variance_type == "learned_range" else 1)
    outputs = torch.randn((case.steps, case.shape[0], channels, *case.shape[2:]), generator=source)
    first = sample = torch.randn(case.shape, generator=source)
    scheduler = case.scheduler()
    scheduler.set_timesteps(case.steps)
    noise, prev_samples, originals = [], [], []
    for index, timestep in enumerate(scheduler.timesteps):
        last = index + 1 == case.steps
        if not last:
            peek = torch.Generator()
            peek.set_state(source.get_state())
            noise.append(torch.randn(case.shape, generator=peek))
        prev_timestep = None if last else scheduler.timesteps[index + 1]
        step = scheduler.step(outputs[index], timestep, sample, prev_timestep=prev_timestep, generator=source)
        sample = step.prev_sample
        prev_samples.append(sample)
        originals.append(step.pred_original_sample)
    return {
        "in.sample": first,
        "in.model_output": outputs,
        "in.noise": torch.stack(noise),
        "out.timesteps": scheduler.timesteps,
        "out.prev_sample": torch.stack(prev_samples),
        "out.pred_original_sample": torch.stack(originals),
    }


def generate() -> None:
    scheduler = UnCLIPScheduler()
    tables = {"out.betas": scheduler.betas, "out.alphas_cumprod": scheduler.alphas_cumprod}
    for steps in TABLES:
        scheduler.set_timesteps(steps)
        tables[f"out.timesteps.{steps}"] = scheduler.timesteps.clone()
    save("scheduler-tables", tables, num_train_timesteps=1000)
    for name, case in CASES.items():
        settings = asdict(case)
        del settings["shape"]
        save(f"scheduler-{name}", walk(case), **settings)
