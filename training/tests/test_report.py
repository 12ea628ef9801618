# SPDX-License-Identifier: Apache-2.0
"""The whole evaluation on a small world: toy judges, few pictures, few steps."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from unclip_training import context as context_module
from unclip_training.context import Context
from unclip_training.data.icons import Concept
from unclip_training.data.sprites import Atlas, with_mips
from unclip_training.evaluation import evaluate, judging, large, plots, report, upsamplers
from unclip_training.evaluation.evaluate import Evaluation, chosen_sweeps, parser
from unclip_training.evaluation.judges import ClassifierStage, SecondClipStage, lessons
from unclip_training.evaluation.judging import train
from unclip_training.evaluation.prompts import SETS, prompts
from unclip_training.loop import write_atomically
from unclip_training.presets import TINY, Run
from unclip_training.tokenizer import Tokenizer

CPU = torch.device("cpu")
SHORT = Run(batch=8, rate=1e-3, steps=3, warm_up=1)


def squares(_folder: Path, names: list[str], size: int, *_others: object) -> Atlas:
    """In place of rendered icons: each sprite a square of its own grey."""
    found = []
    for at, _ in enumerate(list(names)):
        pixels = np.zeros((size, size, 4), np.uint8)
        pixels[size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = 40 + 5 * (at % 40)
        pixels[size // 4 : 3 * size // 4, size // 4 : 3 * size // 4, 3] = 255
        found.append(with_mips(pixels))
    return Atlas(list(names), size, np.stack(found))


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, concepts: tuple[Concept, ...], tokenizer: Tokenizer) -> Context:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in (context_module, evaluate, large):
        monkeypatch.setattr(module, "open_atlas", squares)
    data = replace(TINY.data, styles=("fluent", "noto"), atlas=128, large_atlas=256, scenes=64)
    small = replace(TINY.upsampler_1, channels=(32, 32), crop=32)
    made = Context(replace(TINY, data=data, upsampler_1=small, upsampler_2=small), tmp_path / "judges", CPU, log=lambda _: None)
    made.__dict__ |= {"concepts": concepts, "packages": tmp_path}
    merges = [list(pair) for pair in tokenizer.merges]
    write_atomically(made.checkpoint("tokenizer"), {"merges": merges, "length": tokenizer.length})
    return made


def test_the_report_holds_every_figure(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taught = lessons(context, 64)
    for stage in (ClassifierStage, SecondClipStage):
        train(context, stage(context, taught, SHORT))
    monkeypatch.setattr(Evaluation, "run", lambda *_: SHORT)
    sheets = tmp_path / "sheets"
    options = parser().parse_args([
        "--count", "2", "--few", "2", "--large-count", "2", "--steps", "2", "--scenes", "64",
        "--sweep", "guidance=1,2", "--sweep", "steps=2,3", "--sheets", str(sheets),
    ])
    evaluation = Evaluation(options, context)
    evaluation.model.upsampler = lambda size: lambda small, generators: upsamplers.bicubic(small)  # type: ignore[method-assign]
    evaluation.drawer = lambda captions, seed, size=64: functional.interpolate(evaluation.model(captions, seed), size=(size, size))
    found = json.loads(json.dumps(evaluation.report()))
    summary = found["summary"]
    assert found["model"] == "models/emoji" and found["sets"].keys() == SETS.keys()
    for name in report.SHARES:
        assert summary[name].keys() == {"en", "zh", "ceiling"} and all(0 <= value <= 1 for value in summary[name].values())
    assert set(report.SHARES) < summary["language_gap_points"].keys() and summary["by_category"]
    assert summary["agreement"].keys() == {"same_recognition", "clip_cosine"} and summary["diversity"] is not None
    assert summary["kid"].keys() == {"64", "256", "1024"} and None not in summary["kid"].values()
    assert summary["priors"]["diffusion"]["top1"] is not None and summary["priors"]["none"]["kid"] is not None
    assert summary["priors"]["autoregressive"] is None and "ar_prior" in summary["missing"]["priors.autoregressive"]
    assert summary["priors"]["order"] == {"clip_cosine": None, "top1": None}
    for size in ("256", "1024"):
        ways = summary["upsamplers"][size]
        assert ways["pictures"] == 2
        assert all(ways[way]["psnr"] > 0 and ways[way]["ssim"] <= 1 for way in ("lanczos", "regression", "diffusion"))
    assert [row["guidance"] for row in summary["sweeps"]["guidance"]] == [1, 2]
    assert all(row["diversity"] is not None for row in summary["sweeps"]["steps"])
    assert {path.name for path in sheets.glob("*.png")} >= {f"{name}-en.png" for name in SETS}
    assert (sheets / "sweep-steps.png").exists() == plots.available()
    assert evaluation.model.guidance["decoder"] == 2.0 and evaluation.model.steps["decoder"] == 2

    tables = report.markdown(found)
    assert "| seen captions, top-1 |" in tables and "≥ 90 %" in tables and "priors.autoregressive" in tables
    assert "| seen_top1.en |" in report.side_by_side(found, found) and "+0.0 points" in report.side_by_side(found, found)


def test_a_quick_report_says_what_it_lacks(context: Context) -> None:
    options = parser().parse_args([
        "--quick", "--count", "2", "--few", "2", "--large-count", "0", "--steps", "2", "--no-upsamplers",
        "--sweep", "steps=2",
    ])
    found = Evaluation(options, context).report()
    summary = found["summary"]
    assert summary["seen_top1"] is None and summary["missing"]["seen_top1"] == report.NO_JUDGES
    assert summary["kid"] == {"64": None, "256": None, "1024": None} and summary["missing"]["upsamplers"] == "--no-upsamplers"
    assert summary["priors"]["none"]["nearest_top1"] is not None and summary["sweeps"]["guidance"] is None
    assert found["sets"]["seen"]["en"]["nearest_top5"] is not None
    assert "Not measured" in report.markdown(found)


def test_two_reports_are_compared_without_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    for name, top in (("old", 0.5), ("new", 0.75)):
        sets = {"seen": {"prompts": 4, "en": {"top1": top, "top5": 1.0, "top1_by_category": {}}, "zh": {"top1": 0.5, "top5": 1.0}}}
        whole = {"model": name, "sets": sets, "kid": {"64": top}, "priors": "no", "upsamplers": "no", "sweeps": "no"}
        (tmp_path / name).write_text(json.dumps(whole | {"summary": report.summary(whole)}))
    monkeypatch.setattr(sys, "argv", ["evaluate", "--compare", str(tmp_path / "old"), str(tmp_path / "new")])
    evaluate.main()
    said = capsys.readouterr().out
    assert "| seen_top1.en | 50.0 % | 75.0 % | +25.0 points | ≥ 90 % |" in said
    assert "| kid.64 | 0.5 | 0.75 | +0.25 |  |" in said


@pytest.mark.parametrize(("content", "message"), [
    ("{", "is not JSON"), ("[1]", "is no report"), ('{"model": "a"}', "is no report"), ("[" * 100_000, "is not JSON"),
    ('{"model": "a", "summary": {"sweeps": [1]}}', "its summary is damaged"), (None, "No such file"),
])
def test_what_is_compared_is_read_first(
    content: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "old").write_text(content)
    monkeypatch.setattr(sys, "argv", ["evaluate", "--compare", str(tmp_path / "old")])
    with pytest.raises(SystemExit, match=message):
        evaluate.main()


def test_reports_not_measured_alike_say_so() -> None:
    one = {"model": "a", "preset": "tiny", "judges": {"classifier": "1"}, "count": 40, "seeds": 2, "summary": {}}
    assert report.differences(one, one) == [] and "Beware" not in report.side_by_side(one, one)
    other = one | {"judges": {"classifier": "2"}, "count": 100}
    assert [line.split(":")[0] for line in report.differences(one, other)] == ["judges", "count"]
    assert "Beware, not measured alike: count: 40 before, 100 after." in report.side_by_side(one, other)


def test_a_picture_that_is_no_number_ends_the_evaluation() -> None:
    pictures = torch.tensor([0.0, float("nan")])[:, None, None, None].expand(2, 3, 64, 64)
    with pytest.raises(SystemExit, match="'a cat', seed 1, holds"):
        judging.draw(lambda captions, seed, size: pictures, ["a dog", "a cat"])


def test_only_known_sweeps_are_made() -> None:
    assert chosen_sweeps(None).keys() == {"guidance", "steps"}
    assert chosen_sweeps(["guidance=1,2.5"]) == {"guidance": (1.0, 2.5)} and chosen_sweeps(["none"]) == {}
    assert str(chosen_sweeps(["steps=5,10"])["steps"]) == "(5, 10)"
    for wrong in ("colour", "steps=nan", "steps=inf", "steps=a", "steps=1", "steps=2.5"):
        with pytest.raises(SystemExit):
            chosen_sweeps([wrong])


def test_regression_starts_from_the_bicubic_enlargement_and_learns(context: Context) -> None:
    scenes = context.open_scenes(context.concepts, 128, 1, 64, False)
    stage = upsamplers.RegressionStage(context, context.preset.upsampler_1, 256, scenes, SHORT)
    small = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(stage.network(small), upsamplers.bicubic(small))
    optimizer, losses = torch.optim.Adam(stage.network.parameters(), lr=1e-3), []
    for _ in range(6):
        loss, _ = stage.loss(0, torch.Generator().manual_seed(3))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_lanczos_keeps_flat_areas_and_crops_show_the_same_places(context: Context) -> None:
    flat = torch.full((1, 3, 8, 8), 0.25)
    assert torch.allclose(upsamplers.lanczos(flat), torch.full((1, 3, 32, 32), 0.25), atol=1e-5)
    asked = prompts(context, "seen", 3)
    scenes = large.open_large(context, asked)
    assert next(iter(scenes.atlases.values())).shape[0] <= 3
    whole, index = scenes.draw(torch.arange(3), 256, torch.zeros(3, 2)), torch.tensor([2, 0])
    corner = torch.tensor([[0.25, 0.5], [0.0, 0.125]])
    assert torch.allclose(large.cut(whole, index, corner, 64), scenes.draw(index, 64, corner, 0.25), atol=1e-4)
