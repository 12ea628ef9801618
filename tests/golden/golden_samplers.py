"""DDIM, DPM-Solver++(2M) and DDIM inversion on UnCLIPScheduler's betas, timesteps "trailing".

The predicted picture is clipped as UnCLIPScheduler clips it, and the solvers see the clipped one: DDIM by
`use_clipped_model_output`, DPM-Solver++ by its thresholding, which here is that clip, and the inverse by being given
pictures that are clipped already. A threshold (Imagen's, diffusers' dynamic_thresholding_ratio) takes the clip's place.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, DPMSolverMultistepScheduler, UnCLIPScheduler

from store import save


@dataclass(frozen=True)
class Case:
    """A scheduler's configuration and the walk it is put through."""

    sampler: str
    prediction_type: str
    steps: int
    eta: float = 0.0
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    ends_at_zero: bool = False
    threshold: float = 0.0
    shape: tuple[int, ...] = (2, 3, 3, 3)
    num_train_timesteps: int = 1000


CASES = {
    "ddim": Case("ddim", "epsilon", 25, shape=(1, 3, 2, 2)),
    "ddim-sample": Case("ddim", "sample", 10),
    "ddim-unclipped": Case("ddim", "epsilon", 8, clip_sample=False),
    "ddim-eta": Case("ddim", "sample", 8, eta=0.4),
    "ddim-eta-1": Case("ddim", "epsilon", 10, eta=1.0, clip_sample_range=2.5),
    "ddim-every-step": Case("ddim", "epsilon", 20, num_train_timesteps=20, shape=(1, 3, 2, 2)),
    "ddim-threshold": Case("ddim", "epsilon", 10, threshold=0.9, shape=(1, 3, 5, 5)),
    "ddim-threshold-eta": Case("ddim", "sample", 8, eta=0.5, threshold=0.995, shape=(1, 3, 4, 4)),
    "dpm-threshold": Case("dpm-solver++", "epsilon", 8, threshold=0.8, shape=(1, 3, 5, 5)),
    "dpm": Case("dpm-solver++", "epsilon", 20, shape=(1, 3, 2, 2)),
    "dpm-sample": Case("dpm-solver++", "sample", 12),
    "dpm-sample-7": Case("dpm-solver++", "sample", 7, clip_sample_range=5.0, shape=(2, 24)),
    "dpm-unclipped": Case("dpm-solver++", "sample", 10, clip_sample=False),
    "dpm-ends-at-zero": Case("dpm-solver++", "epsilon", 7, ends_at_zero=True),
    "dpm-two-steps": Case("dpm-solver++", "sample", 2),
    "dpm-one-step": Case("dpm-solver++", "epsilon", 1),
    "inverse": Case("inverse", "epsilon", 10, clip_sample=False),
    "inverse-sample": Case("inverse", "sample", 25, clip_sample=False, shape=(1, 3, 2, 2)),
    "inverse-clipped": Case("inverse", "sample", 10),
}


class ClippedSolver(DPMSolverMultistepScheduler):
    """With UnCLIPScheduler's clip in the place of the threshold."""

    clip_sample_range = 1.0
    dynamic = False

    def _threshold_sample(self, sample: torch.Tensor) -> torch.Tensor:
        if self.dynamic:
            return super()._threshold_sample(sample)
        return sample.clamp(-self.clip_sample_range, self.clip_sample_range)


def thresholding(case: Case) -> dict[str, object]:
    return {"dynamic_thresholding_ratio": case.threshold, "sample_max_value": 1e9} if case.threshold else {}


def common(case: Case) -> dict[str, object]:
    return {
        "num_train_timesteps": case.num_train_timesteps,
        "trained_betas": UnCLIPScheduler(num_train_timesteps=case.num_train_timesteps).betas.numpy(),
        "prediction_type": case.prediction_type,
        "timestep_spacing": "trailing",
    } | thresholding(case)


def ddim(case: Case) -> DDIMScheduler:
    scheduler = DDIMScheduler(
        **common(case),
        clip_sample=case.clip_sample,
        clip_sample_range=case.clip_sample_range,
        thresholding=case.threshold > 0,
        set_alpha_to_one=True,
    )
    scheduler.set_timesteps(case.steps)
    return scheduler


def inverse(case: Case) -> DDIMInverseScheduler:
    scheduler = DDIMInverseScheduler(**common(case), clip_sample=False, set_alpha_to_one=False)
    scheduler.set_timesteps(case.steps)
    return scheduler


def solver(case: Case) -> ClippedSolver:
    scheduler = ClippedSolver(
        **common(case),
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        lower_order_final=True,
        final_sigmas_type="zero",
        thresholding=case.clip_sample,
    )
    scheduler.clip_sample_range = case.clip_sample_range
    scheduler.dynamic = case.threshold > 0
    if case.ends_at_zero:
        model = UnCLIPScheduler(num_train_timesteps=case.num_train_timesteps)
        model.set_timesteps(case.steps)
        scheduler.set_timesteps(timesteps=model.timesteps.tolist())
    else:
        scheduler.set_timesteps(case.steps)
    return scheduler


def walk(case: Case) -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(6)
    outputs = torch.randn((case.steps, *case.shape), generator=source)
    noise = torch.randn((case.steps, *case.shape), generator=source)
    first = sample = torch.randn(case.shape, generator=source)
    scheduler = {"ddim": ddim, "dpm-solver++": solver, "inverse": inverse}[case.sampler](case)
    samples, pictures = [], []
    for output, fresh, timestep in zip(outputs, noise, scheduler.timesteps, strict=True):
        if case.sampler == "ddim":
            step = scheduler.step(
                output, timestep, sample, eta=case.eta, use_clipped_model_output=True, variance_noise=fresh
            )
            pictures.append(step.pred_original_sample)
        elif case.sampler == "inverse":
            limit = case.clip_sample_range
            given = output.clamp(-limit, limit) if case.clip_sample else output
            step = scheduler.step(given, timestep, sample)
            pictures.append(step.pred_original_sample)
        else:
            step = scheduler.step(output, timestep, sample)
            pictures.append(scheduler.model_outputs[-1])
        sample = step.prev_sample
        samples.append(sample)
    tensors = {
        "in.sample": first,
        "in.model_output": outputs,
        "out.timesteps": scheduler.timesteps,
        "out.prev_sample": torch.stack(samples),
        "out.pred_original_sample": torch.stack(pictures),
    }
    if case.eta > 0:
        tensors["in.noise"] = noise
    return tensors


def generate() -> None:
    for name, case in CASES.items():
        settings = asdict(case)
        del settings["shape"]
        save(f"sampler-{name}", walk(case), **settings)
