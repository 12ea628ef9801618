# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from unclip_training.diffusion import STEPS, Diffusion, sample, scheduler
from unclip_training.loop import PART_BYTES, Budget, Trainer, is_met, pack, unpack
from unclip_training.presets import PRESETS, Run, smoke
from unclip_training.stages.ar_prior import ArPriorNetwork, Quantiser
from unclip_training.stages.degrade import blur_some, bsr
from unclip_training.train import chosen_stages, with_budgets

CPU = torch.device("cpu")


class Toy:
    """Learns a fixed linear map from random inputs."""

    name = "toy"

    def __init__(self, steps: int) -> None:
        torch.manual_seed(0)
        self.run = Run(batch=8, rate=0.01, steps=steps, warm_up=5, ema=0.9)
        self.network = nn.Linear(4, 2)

    def loss(self, progress: float, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        x = torch.randn(self.run.batch, 4, generator=generator)
        return (self.network(x) - x[:, :2]).square().mean(), {}


class After:
    """A budget that ends after so many looks at it."""

    def __init__(self, steps: int) -> None:
        self.left = 2 * steps  # looked at before and after each step

    @property
    def over(self) -> bool:
        self.left -= 1
        return self.left < 0


def trainer(path: Path, steps: int = 40) -> Trainer:
    return Trainer(Toy(steps), path, CPU, lambda _: None)


def test_interrupted_training_equals_uninterrupted(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole.pt")
    assert whole.fit(Budget())
    for at in range(100):
        part = trainer(tmp_path / "part.pt")
        if at:
            part.restore()
        if part.fit(After(7)):  # type: ignore[arg-type]
            break
    assert 4 < at < 10
    for name, value in whole.average_state().items():
        assert torch.equal(value, part.average_state()[name])
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters, part.parameters, strict=True))


def test_a_budget_is_met_by_what_the_checkpoint_has_had(tmp_path: Path) -> None:
    path, run = tmp_path / "toy.pt", Toy(40).run
    assert not is_met(path, run)
    done = trainer(path)
    done.fit(Budget())
    done.seconds = 90.0
    done.save()
    assert is_met(path, run) and is_met(path, replace(run, steps=39)) and not is_met(path, replace(run, steps=41))
    assert is_met(path, replace(run, steps=0, minutes=1.5)) and not is_met(path, replace(run, steps=0, minutes=1.6))


def test_compiling_costs_no_budget(tmp_path: Path) -> None:
    counted = trainer(tmp_path / "toy.pt")
    for took in (60.0, 1.0, 1.0, 70.0, 1.0):
        counted.account(took)
    assert counted.seconds == 3.0


def test_training_learns(tmp_path: Path) -> None:
    done = trainer(tmp_path / "toy.pt", steps=400)
    before = float(done.stage.loss(0, torch.Generator().manual_seed(1))[0])
    done.fit(Budget())
    assert float(done.stage.loss(1, torch.Generator().manual_seed(1))[0]) < before / 10


def test_a_loss_that_is_no_number_stops_training(tmp_path: Path) -> None:
    broken = trainer(tmp_path / "toy.pt")
    nn.init.constant_(broken.stage.network.weight, float("nan"))
    with pytest.raises(FloatingPointError, match="toy: the loss is nan"):
        broken.fit(Budget())


def test_packed_checkpoints_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unclip_training.loop.PART_BYTES", 1000)
    done = trainer(tmp_path / "toy.pt")
    done.fit(Budget())
    paths = pack(tmp_path / "toy.pt", tmp_path / "parts")
    assert len(paths) > 1 and max(path.stat().st_size for path in paths) <= 1000 < PART_BYTES
    assert unpack(tmp_path / "parts", "toy", tmp_path / "back" / "toy.pt")
    back = trainer(tmp_path / "back" / "toy.pt")
    back.restore()
    assert back.step == done.step
    assert back.rate() <= done.stage.run.rate / done.stage.run.warm_up  # warms up anew
    for name, value in done.average_state().items():
        assert torch.equal(back.average_state()[name], value.bfloat16().float())
    paths[0].unlink()
    with pytest.raises(ValueError, match="parts of toy"):
        unpack(tmp_path / "parts", "toy", tmp_path / "back" / "toy.pt")
    assert not unpack(tmp_path / "parts", "other", tmp_path / "other.pt")


@pytest.mark.parametrize("prediction", ["sample", "epsilon"])
def test_diffusion_recovers_what_it_noised(prediction: str) -> None:
    diffusion = Diffusion(prediction, CPU)  # type: ignore[arg-type]
    start, noise = torch.rand(6, 3, 4, 4) * 2 - 1, torch.randn(6, 3, 4, 4)
    step = torch.tensor([0, 10, 200, 500, 800, 990])
    noisy = diffusion.noise(start, step, noise)
    reference = scheduler("sample", "fixed_small_log").add_noise(start, noise, step)
    assert torch.allclose(noisy, reference, atol=1e-6)
    target = start if prediction == "sample" else noise
    assert torch.allclose(diffusion.start_of(target, noisy, step), start, atol=2e-2)
    assert float(diffusion.loss(target, start, noisy, noise, step)) == 0
    assert torch.isfinite(diffusion.loss(torch.cat([target, 0 * target], 1), start, noisy, noise, step))


def test_the_bound_is_least_for_the_true_variance() -> None:
    diffusion = Diffusion("sample", CPU)
    start, noise = torch.rand(4, 3, 4, 4) * 2 - 1, torch.randn(4, 3, 4, 4)
    step = torch.tensor([5, 100, 500, 900])
    noisy = diffusion.noise(start, step, noise)
    exact = diffusion.bound(start, torch.full_like(start, -1.0), start, noisy, step)
    assert float(exact) < 1e-5 < float(diffusion.bound(start, torch.ones_like(start), start, noisy, step))


def test_sampling_with_a_perfect_model_gives_the_picture() -> None:
    start = torch.rand(2, 3, 4, 4) * 2 - 1
    found = sample(scheduler("sample", "fixed_small_log"), lambda noisy, step: start, torch.randn(2, 3, 4, 4), 10)
    assert torch.allclose(found, start, atol=0.02)
    assert STEPS == 1000


def test_quantiser_round_trip() -> None:
    torch.manual_seed(1)
    embeddings = torch.randn(4000, 16) @ torch.randn(16, 16) + 3
    quantiser = Quantiser(16, 16, 256, 8)
    quantiser.fit(embeddings, torch.rand(4000))
    codes = quantiser.encode(embeddings)
    assert codes.shape == (4000, 16) and int(codes.min()) == 0 and int(codes.max()) == 255
    back = quantiser.decode(codes)
    error = (back - embeddings).square().sum() / (embeddings - embeddings.mean(0)).square().sum()
    assert float(error) < 1e-3
    assert torch.equal(quantiser.encode(back), codes)
    first = Quantiser(16, 4, 256, 8)
    first.fit(embeddings, torch.rand(4000))
    assert torch.allclose(first.directions, quantiser.directions[:4])


def test_the_autoregressive_prior_looks_back_only() -> None:
    from unclip_training.context import Text

    torch.manual_seed(2)
    config = replace(PRESETS["tiny"].ar_prior, width=16, layers=2, heads=2, dimensions=5, buckets=7, dot_buckets=4)
    network = ArPriorNetwork(config, embedding=8, text_width=8, length=6).eval()
    mask = torch.tensor([[True, True, True, False, False, False]])
    text = Text(torch.randn(1, 8), torch.randn(1, 6, 8), mask)
    codes, dot = torch.tensor([[1, 2, 3, 4]]), torch.tensor([2])
    logits = network(text, dot, codes)
    assert logits.shape == (1, 5, 7)
    changed = network(text, dot, torch.tensor([[1, 2, 6, 4]]))
    assert torch.allclose(logits[:, :3], changed[:, :3], atol=1e-6) and not torch.allclose(logits[:, 3], changed[:, 3])
    hidden = Text(text.embedding, text.states + 5 * ~mask[..., None], mask)
    assert torch.allclose(network(hidden, dot, codes), logits, atol=1e-5)
    assert network.sample(text, torch.Generator().manual_seed(0)).shape == (1, 8)


@pytest.mark.parametrize("degrade", [blur_some, bsr])
def test_degradations_follow_the_generator(degrade) -> None:  # noqa: ANN001
    pictures = torch.rand(6, 3, 24, 24) * 2 - 1
    once = degrade(pictures, torch.Generator().manual_seed(4))
    assert torch.equal(once, degrade(pictures, torch.Generator().manual_seed(4)))
    assert once.shape == pictures.shape and torch.isfinite(once).all()
    assert 0 < float((once - pictures).abs().mean()) < 0.5


def test_stages_come_in_order_and_unknown_ones_are_refused() -> None:
    assert chosen_stages("decoder,clip", "") == ["clip", "decoder"]
    assert "ar-prior" not in chosen_stages("all", "ar-prior")
    with pytest.raises(SystemExit, match="no stage is called 'nose'"):
        chosen_stages("nose", "")


def test_budgets() -> None:
    preset = with_budgets(smoke(PRESETS["tiny"]), ["decoder=2.5"])
    assert preset.decoder.run.minutes == 2.5 and preset.decoder.run.steps == 0
    with pytest.raises(SystemExit, match="not STAGE=MINUTES"):
        with_budgets(preset, ["decoder=soon"])


def test_the_variance_is_held_between_its_bounds() -> None:
    diffusion = Diffusion("sample", CPU)
    start, noise = torch.rand(2, 3, 4, 4) * 2 - 1, torch.randn(2, 3, 4, 4)
    step = torch.tensor([980, 990])
    noisy, crude = diffusion.noise(start, step, noise), -start  # a guess so bad that no variance is large enough
    losses = []
    for value in (1.0, 3.0, 30.0):
        variance = torch.full_like(start, value, requires_grad=True)
        loss = diffusion.loss(torch.cat([crude, variance], 1), start, noisy, noise, step)
        loss.backward()
        losses.append(float(loss.detach()))
        assert value == 1.0 or bool((variance.grad > 0).all())  # back to the bound
    assert losses[1:] == pytest.approx([losses[0] + 2**2, losses[0] + 29**2])  # the squared way back, and nothing else
