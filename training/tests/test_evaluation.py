# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from unclip_training.data.scenes import COLOURS
from unclip_training.evaluation.judges import Classifier, SecondClip
from unclip_training.evaluation.metrics import Seen, agreement, diversity, kid
from unclip_training.evaluation.nearest import borders
from unclip_training.evaluation.pictures import Model

ROOT = Path(__file__).resolve().parents[2]


def seen(embeddings: torch.Tensor, first: list[int]) -> Seen:
    logits = {name: torch.nn.functional.one_hot(torch.tensor(first), 4).float() for name in ("first", "background")}
    return Seen(logits, torch.zeros(len(first), 2), torch.nn.functional.normalize(embeddings, dim=-1))


def test_the_model_is_run_as_diffusers_does() -> None:
    """Against the golden of the whole pipeline, but for bf16."""
    with safe_open(ROOT / "tests/golden/data/pipeline-emoji.safetensors", "pt") as golden:
        settings, expected = golden.metadata(), golden.get_tensor("out.decoder")
    model = Model(ROOT / "models/emoji", torch.device("cpu"))
    model.steps = {"prior": int(settings["prior_steps"]), "decoder": int(settings["decoder_steps"])}
    model.guidance = {"prior": float(settings["prior_guidance"]), "decoder": float(settings["decoder_guidance"])}
    drawn = model([settings["prompt"]], int(settings["seed"]))
    assert float((drawn - expected).square().mean()) < 0.02


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
    assert abs(same) < 0.05 < moved


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
