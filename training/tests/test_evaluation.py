# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from unclip_training.context import Text
from unclip_training.data.scenes import COLOURS
from unclip_training.evaluation import likeness, priors
from unclip_training.evaluation.judges import Classifier, SecondClip, words
from unclip_training.evaluation.metrics import Seen, agreement, diversity, kid
from unclip_training.evaluation.nearest import borders
from unclip_training.evaluation.pictures import Model, numbers
from unclip_training.evaluation.sweeps import changed, order
from unclip_training.presets import ArPrior, Run
from unclip_training.stages import ar_prior

ROOT = Path(__file__).resolve().parents[2]


def seen(embeddings: torch.Tensor, first: list[int]) -> Seen:
    logits = {name: torch.nn.functional.one_hot(torch.tensor(first), 4).float() for name in ("first", "background")}
    return Seen(logits, torch.zeros(len(first), 2), torch.nn.functional.normalize(embeddings, dim=-1))


def test_a_judge_learns_words_from_signs_alone() -> None:
    logits, sign = torch.zeros(4, 3), torch.tensor([0, 0, 2, 0])
    logits[2, 2] = 50.0
    assert float(words(logits, sign)) == 0 and float(words(logits, torch.zeros(4, dtype=torch.long))) == 0
    assert float(words(logits, torch.tensor([0, 1, 2, 0]))) == pytest.approx(float(torch.tensor(3.0).log()) / 2)


def test_the_model_is_run_as_diffusers_does() -> None:
    """Against the golden of the whole pipeline, but for bf16."""
    with safe_open(ROOT / "tests/golden/data/pipeline-emoji.safetensors", "pt") as golden:
        settings, expected = golden.metadata(), golden.get_tensor("out.image")
    model = Model(ROOT / "models/emoji", torch.device("cpu"))
    model.steps |= {"prior": int(settings["prior_steps"]), "decoder": int(settings["decoder_steps"])}
    model.guidance = {"prior": float(settings["prior_guidance"]), "decoder": float(settings["decoder_guidance"])}
    drawn = model([settings["prompt"]], int(settings["seed"]), 256)
    assert float((drawn - expected.permute(0, 3, 1, 2) / 127.5 + 1).square().mean()) < 0.02
    caption = settings["prompt"]
    with changed(model, "steps", 2):
        small = model([caption], 3)
        assert model.steps["decoder"] == model.steps["prior"] == 2
    assert small.shape == (1, 3, 64, 64) and model.steps["decoder"] == int(settings["decoder_steps"])


def test_an_upsampled_picture_does_not_depend_on_its_batch() -> None:
    model = Model(ROOT / "models/emoji", torch.device("cpu"))
    model.steps |= {"upsampler-2": 2}
    small = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    together = model.upsampler(1024)(small, numbers(5, 3))
    alone = model.upsampler(1024)(small[1:2], numbers(6, 1))
    assert together.shape == (3, 3, 64, 64) and float((together[1:2] - alone).abs().max()) < 0.05


def test_an_autoregressive_prior_is_read_back_and_samples_rows_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ArPrior(Run(1, 1), width=16, layers=2, heads=2, dimensions=5, buckets=8, dot_buckets=6)
    network = ar_prior.ArPriorNetwork(config, embedding=12, text_width=10, length=4)
    network.quantiser.fit(torch.randn(200, 12), torch.rand(200))
    exporting = SimpleNamespace(
        preset=SimpleNamespace(ar_prior=config, clip=SimpleNamespace(embedding=12, width=10)),
        tokenizer=SimpleNamespace(length=4), trained=lambda _: network.state_dict(),
    )
    ar_prior.export(exporting, tmp_path / priors.FOLDER)  # type: ignore[arg-type]
    read = priors.load(tmp_path, torch.device("cpu"))
    assert read.state_dict().keys() == network.state_dict().keys()

    def text(rows: list[int]) -> Text:
        """The empty caption's rows and those of three captions."""
        embedding, states, mask = torch.randn(4, 12, generator=seeded()), torch.randn(4, 4, 10, generator=seeded()), torch.ones(4, 4)
        chosen = [0] * len(rows) + rows
        return Text(embedding[chosen], states[chosen], mask[chosen].bool())

    together = priors.sample(read, text([1, 2, 3]), 2.0, numbers(7, 3))
    alone = priors.sample(read, text([2]), 2.0, numbers(8, 1))
    assert together.shape == (3, 12) and torch.allclose(together[1:2], alone, atol=1e-5)
    assert not torch.allclose(together[0], together[2])


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_codes_are_drawn_by_their_chances() -> None:
    chances = torch.tensor([[0.25, 0.5, 0.25]]).expand(4, -1)
    assert priors.pick(chances, torch.tensor([0.0, 0.3, 0.74, 0.99])).flatten().tolist() == [0, 1, 1, 2]
    assert priors.pick(torch.tensor([[0.5, 0.4999999]]), torch.tensor([1.0])).tolist() == [[1]]


def test_the_order_of_the_priors() -> None:
    figures = {"diffusion": {"top1": 0.9, "clip_cosine": 0.5}, "autoregressive": {"top1": 0.9, "clip_cosine": 0.6}}
    worst = {"none": {"top1": 0.2, "clip_cosine": 0.1}}
    assert order(figures | worst) == {"top1": True, "clip_cosine": False}
    assert order(dict.fromkeys(("diffusion", "autoregressive", "none"), {"top1": 0.0})) == {"top1": None, "clip_cosine": None}
    assert order({"diffusion": figures["diffusion"], "autoregressive": "not there"} | worst) == {"top1": None, "clip_cosine": None}


def test_equal_pictures_agree_and_are_not_diverse() -> None:
    one = seen(torch.randn(5, 8), [0, 1, 2, 3, 0])
    assert agreement(one, one) == {"same_recognition": 1.0, "clip_cosine": 1.0}
    assert diversity([one, one]) == pytest.approx(0, abs=1e-4)
    other = seen(-one.embeddings, [1, 1, 2, 3, 0])
    assert agreement(one, other)["same_recognition"] == 0.8
    assert diversity([one, other]) == pytest.approx(2, abs=1e-4)


def test_kid_tells_distributions_apart() -> None:
    torch.manual_seed(0)
    same = kid(torch.randn(300, 16), torch.randn(300, 16))
    moved = kid(torch.randn(300, 16), torch.randn(300, 16) + 1)
    assert same is not None and moved is not None and abs(same) < 0.05 < moved


def test_kid_of_equal_pictures_is_zero_and_knows_which_crops_belong_together() -> None:
    torch.manual_seed(0)
    some = torch.randn(12, 16)
    assert kid(some, some) == kid(some, some, 4) == 0
    assert kid(some, some, 12) is None
    tripled = some.repeat_interleave(3, 0)
    other = torch.randn(12, 16)
    assert kid(tripled, other.repeat_interleave(3, 0), 3) == pytest.approx(kid(some, other), abs=1e-3)


def test_likeness_is_best_for_equal_pictures() -> None:
    torch.manual_seed(0)
    real = torch.rand(2, 3, 48, 48) * 2 - 1
    near, far = (real + noise * torch.randn_like(real) for noise in (0.05, 0.5))
    assert likeness.psnr(real, real) == pytest.approx(120)
    pair = torch.zeros(2, 3, 8, 8)
    assert likeness.psnr(pair, pair + 0.2) == pytest.approx(20, abs=1e-4)
    pair[1] = 0.2
    assert likeness.psnr(torch.zeros(2, 3, 8, 8), pair) == pytest.approx(23.0103, abs=1e-4)
    assert likeness.ssim(real, real) == pytest.approx(1, abs=1e-5)
    assert (likeness.ssim(near, real) > likeness.ssim(far, real)).all()
    network = likeness.Distance().eval()
    for name, weights in network.named_buffers():
        if name.endswith("filt"):
            weights.fill_(1 / 9)
    assert network(real, real).tolist() == [0, 0] and (network(far, real) != 0).all()
    found = likeness.compare(near, real, None)
    assert found["psnr"] > 25 and found["st_lpips"] is None


def test_st_lpips_is_its_packages() -> None:
    """The figure is what stlpips_pytorch 0.0.2's own code gives; launch installs its weights."""
    network = likeness.distance(torch.device("cpu"))
    assert network is not None
    x = torch.arange(64) / 64
    waves = ((9 * x).sin()[:, None] * (7 * x).cos(), (5 * x).sin()[:, None].expand(64, 64), (20 * x).cos().expand(64, 64))
    one = torch.stack(waves)[None]
    other = one.clone()
    other[:, :, 16:40, 20:50] = 0.5
    assert float(network(one, other)) == pytest.approx(0.138531, abs=1e-5)


def test_borders_are_told_from_what_they_enclose() -> None:
    pictures = torch.stack([(torch.tensor(COLOURS[name]) / 127.5 - 1)[:, None, None].expand(3, 64, 64) for name in ("red", "gray")])
    pictures = pictures.clone()
    pictures[:, :, 8:56, 8:56] = 1
    assert borders(pictures) == ["red", "gray"]


def test_judges_shapes() -> None:
    pictures = torch.rand(2, 3, 64, 64)
    found = Classifier(things=9, styles=2)(pictures)
    assert found["first"].shape == (2, 10) and found["style"].shape == (2, 2)
    clip = SecondClip(vocabulary=20, end=19)
    short, padded = torch.tensor([[18, 3, 19, 19]]), torch.tensor([[18, 3, 19, 19, 19, 19]])
    assert np.allclose(clip.see(pictures).detach().norm(dim=-1), 1, atol=1e-5)
    assert clip.read(short).shape == clip.read(padded).shape == (1, 192)
