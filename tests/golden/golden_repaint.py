"""RePaintScheduler on UnCLIPScheduler's betas: every step taken, undone, and taken again.

As many steps as training has, so that undo_step is one step of noise. It draws one noise a step for the painted and the
kept part, which the goldens hold; it does not clip, since it works out no noise from a clipped picture.
"""

from __future__ import annotations

import torch
from diffusers import RePaintScheduler, UnCLIPScheduler

from store import save

STEPS = 12
SHAPE = (1, 3, 4, 4)


def peek(source: torch.Generator) -> torch.Tensor:
    """What the generator draws next."""
    copy = torch.Generator()
    copy.set_state(source.get_state())
    return torch.randn(SHAPE, generator=copy)


def walk(eta: float) -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(8)
    outputs = torch.randn((STEPS, 2, *SHAPE), generator=source)
    picture = torch.rand(SHAPE, generator=source) * 2 - 1
    kept = (torch.rand((1, 1, *SHAPE[2:]), generator=source) > 0.5).float()
    first = sample = torch.randn(SHAPE, generator=source)
    scheduler = RePaintScheduler(
        num_train_timesteps=STEPS, trained_betas=UnCLIPScheduler(num_train_timesteps=STEPS).betas.numpy(), eta=eta, clip_sample=False
    )
    scheduler.set_timesteps(STEPS, jump_length=1, jump_n_sample=1)
    noise, samples, undone = [], [], []
    for step, timestep in enumerate(range(STEPS - 1, -1, -1)):
        for go in range(2):
            noise.append(peek(source))
            sample = scheduler.step(outputs[step, go], timestep, sample, picture, kept, generator=source).prev_sample
            samples.append(sample)
            if go == 0 and timestep > 0:
                noise.append(peek(source))
                sample = scheduler.undo_step(sample, timestep, generator=source)
                undone.append(sample)
            elif timestep == 0:
                break
    return {
        "in.sample": first,
        "in.picture": picture,
        "in.kept": kept,
        "in.model_output": outputs,
        "in.noise": torch.stack(noise),
        "out.prev_sample": torch.stack(samples),
        "out.undone": torch.stack(undone),
    }


def generate() -> None:
    for eta in (0.0, 0.6, 1.0):
        save(
            f"repaint-eta-{int(eta * 10)}", walk(eta), steps=STEPS, eta=eta, num_train_timesteps=STEPS,
            prediction_type="epsilon", clip_sample=False, clip_sample_range=1.0,
        )
