# SPDX-License-Identifier: Apache-2.0
"""Gaussian diffusion as UnCLIPScheduler knows it: the cosine schedule, noising, losses, and a batched sampler.

Losses are of Ho et al. 2020 with min-SNR weights (Hang et al. 2023); the learned variance adds the bound of Nichol and
Dhariwal 2021 (hybrid loss), but a thousandth of it: the bound weighs the last steps by one over their tiny variance,
and a model that predicts pictures is never that exact, so it would drown the picture's own error. Everything is in f32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from diffusers import UnCLIPScheduler
from torch import Tensor

STEPS = 1000
VLB_WEIGHT = 0.001
Prediction = Literal["sample", "epsilon"]


def scheduler(prediction: Prediction, variance: str, clip: float = 1.0) -> UnCLIPScheduler:
    return UnCLIPScheduler(
        num_train_timesteps=STEPS, variance_type=variance, clip_sample=True, clip_sample_range=clip,
        prediction_type=prediction, beta_schedule="squaredcos_cap_v2",
    )


class Diffusion:
    """The schedule's tables on a device."""

    def __init__(self, prediction: Prediction, device: torch.device, gamma: float = 5.0, floor: float = 0.5) -> None:
        """`gamma` caps the weight of easy steps; `floor` keeps some weight on the first, which decide on the colours."""
        self.prediction = prediction
        reference = scheduler(prediction, "fixed_small_log")
        self.alpha_bar = reference.alphas_cumprod.to(device)
        self.beta = reference.betas.to(device)
        before = torch.cat([self.alpha_bar.new_ones(1), self.alpha_bar[:-1]])
        self.posterior = (self.beta * (1 - before) / (1 - self.alpha_bar)).clamp(min=1e-20)
        self.posterior[0] = self.posterior[1]
        self.mean_start = before.sqrt() * self.beta / (1 - self.alpha_bar)
        self.mean_noisy = (1 - self.beta).sqrt() * (1 - before) / (1 - self.alpha_bar)
        snr = self.alpha_bar / (1 - self.alpha_bar)
        weight = snr.clamp(min=floor, max=gamma)
        self.weight = weight if prediction == "sample" else weight / snr

    @staticmethod
    def at(table: Tensor, step: Tensor, like: Tensor) -> Tensor:
        return table[step].view(-1, *[1] * (like.dim() - 1))

    def noise(self, start: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        signal = self.at(self.alpha_bar, step, start)
        return signal.sqrt() * start + (1 - signal).sqrt() * noise

    def start_of(self, output: Tensor, noisy: Tensor, step: Tensor) -> Tensor:
        """The picture that an output stands for."""
        if self.prediction == "sample":
            return output
        signal = self.at(self.alpha_bar, step, noisy)
        return (noisy - (1 - signal).sqrt() * output) / signal.sqrt()

    def loss(self, output: Tensor, start: Tensor, noisy: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """The weighted error; outputs of twice as many channels hold the variance in the second half."""
        output = output.float()
        variance = None
        if output.shape[1] == 2 * start.shape[1]:
            output, variance = output.chunk(2, dim=1)
        target = start if self.prediction == "sample" else noise
        error = (output - target).square().flatten(1).mean(1)
        loss = (error * self.weight[step]).mean()
        if variance is None:
            return loss
        outside = (variance - variance.clamp(-1, 1)).square().mean()
        return loss + outside + VLB_WEIGHT * self.bound(output.detach(), variance, start, noisy, step)

    def bound(self, output: Tensor, variance: Tensor, start: Tensor, noisy: Tensor, step: Tensor) -> Tensor:
        """KL of the true and the predicted step, in bits a value; only the variance learns from it.

        The variance stays between the posterior's (-1) and beta (1), and `loss` leads it back there. A crude model's
        errors would want more than beta, where both are nearly one in the first steps: the network then learns to say
        a hundred, and in the last steps, where they are far apart, that is noise of any size.
        """
        guess = self.start_of(output, noisy, step).clamp(-1, 1)
        true_log = self.at(self.posterior.log(), step, start)
        share = (variance.clamp(-1, 1) + 1) / 2
        log = share * self.at(self.beta.log(), step, start) + (1 - share) * true_log
        gap = self.at(self.mean_start, step, start) * (start - guess)
        divergence = 0.5 * (log - true_log - 1 + (true_log - log).exp() + gap.square() * (-log).exp())
        return divergence.mean() / math.log(2)


def sample(
    schedule: UnCLIPScheduler, predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int,
    generator: torch.Generator | list[torch.Generator] | None = None,
) -> Tensor:
    """Walks from noise to a sample as diffusers' pipeline does. `predict` maps (noisy, timestep) to the model's output.

    A list of generators has one for each row.
    """
    schedule.set_timesteps(steps)
    walk = schedule.timesteps
    current = noise
    for at, step in enumerate(walk):
        following = None if at + 1 == len(walk) else walk[at + 1]
        output = predict(current, step).to(current.dtype)
        current = schedule.step(output, step, current, prev_timestep=following, generator=generator).prev_sample
    return current
