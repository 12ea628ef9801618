# SPDX-License-Identifier: Apache-2.0
"""Starting from a model directory, a person's own pictures, and both together, with toy sizes."""

from __future__ import annotations

import json
import shutil
import struct
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from torch import nn
from unclip_training import adopt, directory, models, train
from unclip_training.context import Context
from unclip_training.data.compositor import Scenes, on_device
from unclip_training.data.mixed import GROUP, ROWS, Mixed, cover, mix, view, windows
from unclip_training.data.pictures import DataError, Pictures, open_pictures, samples
from unclip_training.data.sprites import Atlas
from unclip_training.data.table import World, open_table
from unclip_training.evaluation import evaluate
from unclip_training.evaluation.pictures import Model
from unclip_training.examples import fifty_pictures
from unclip_training.export import export
from unclip_training.loop import Budget, write_atomically
from unclip_training.presets import PRESETS, STAGES, Preset, fine_tune
from unclip_training.stages.upsampler import corners
from unclip_training.tokenizer import SUFFIX, Tokenizer, byte_characters

CPU = torch.device("cpu")
TINY = PRESETS["tiny"]
LENGTH = 16


def toy_preset() -> Preset:
    clip = replace(TINY.clip, width=64, layers=1, heads=1, image_width=32, image_layers=1, image_heads=1, patch=16, embedding=64)
    return replace(
        TINY, clip=clip, tokens=replace(TINY.tokens, length=LENGTH), prior=replace(TINY.prior, layers=1, heads=1, steps=3),
        decoder=replace(TINY.decoder, channels=(32, 32, 32, 32), context=32, guidance=3.5),
        upsampler_1=replace(TINY.upsampler_1, channels=(32, 32)), upsampler_2=replace(TINY.upsampler_2, channels=(32, 64)),
    )


def random_networks(context: Context) -> dict[str, nn.Module]:
    preset = context.preset
    embedding = preset.clip.embedding
    prior = models.prior(preset.prior, preset.clip, LENGTH)
    nn.init.ones_(prior.clip_std)
    return {
        "clip": nn.ModuleDict({"text": context.new_text_encoder(), "image": models.image_encoder(preset.clip)}),
        "prior": prior,
        "decoder": nn.ModuleDict({
            "text_proj": models.text_proj(preset.decoder, embedding), "unet": models.decoder(preset.decoder, embedding)
        }),
        "upsampler-1": models.upsampler(preset.upsampler_1, 256),
        "upsampler-2": models.upsampler(preset.upsampler_2, 1024),
    }


def random_model(folder: Path, tokenizer: Tokenizer) -> Path:
    """A directory of random weights, written as training writes it."""
    torch.manual_seed(0)
    context = Context(toy_preset(), folder, CPU, log=lambda _: None)
    write_atomically(context.checkpoint("tokenizer"), {"merges": [list(p) for p in tokenizer.merges], "length": LENGTH})
    for stage, network in random_networks(context).items():
        write_atomically(context.checkpoint(stage), {"average": network.state_dict()})
    export(context, folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    return random_model(tmp_path_factory.mktemp("toy"), tokenizer)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six: a white disc left of the middle, on grounds of different colours."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for at, colour in enumerate(("red", "green", "blue", "black", "brown", "purple")):
        picture = Image.new("RGB", (300, 260), colour)
        ImageDraw.Draw(picture).ellipse((60, 80, 140, 160), fill="white")
        picture.save(folder / f"{at}.png")
        (folder / f"{at}.txt").write_text(f"a moon on {colour}")
    return folder


@pytest.fixture
def own(pictures: Path, tokenizer: Tokenizer, tmp_path: Path) -> Pictures:
    return open_pictures([pictures], tmp_path / "cache", tokenizer, (64, 256), CPU)


@pytest.fixture
def scenes(world: World, atlas: Atlas, tokenizer: Tokenizer, tmp_path: Path) -> Scenes:
    return on_device(open_table(tmp_path / "scenes", world, tokenizer, seed=1, count=64), [atlas], GROUP, CPU)


def few_rows(monkeypatch: pytest.MonkeyPatch, rows: int = 64) -> None:
    monkeypatch.setattr("unclip_training.data.mixed.ROWS", rows)


# Starting from a model directory


def test_sizes_come_from_the_directory(model: Path) -> None:
    toy, found = toy_preset(), adopt.with_sizes_of(TINY, model)
    assert (found.clip, found.tokens, found.upsampler_1, found.upsampler_2) == (toy.clip, toy.tokens, toy.upsampler_1, toy.upsampler_2)
    assert found.decoder == replace(toy.decoder, guidance=TINY.decoder.guidance)
    assert found.prior.layers == 1 and found.prior.steps == TINY.prior.steps
    recommended = adopt.with_steps_of(found, model)
    assert recommended.prior.steps == 3 and recommended.decoder.guidance == 3.5


def test_a_stage_starts_with_the_directorys_weights(model: Path, tmp_path: Path) -> None:
    context = Context(toy_preset(), tmp_path, CPU, log=lambda _: None, model=model)
    context.write_tokenizer()
    torch.manual_seed(1)
    fresh = random_networks(context)
    fresh["clip"].log_scale = nn.Parameter(torch.zeros(()))
    for stage, network in fresh.items():
        context.initialise(network, stage)
        for name, value in context.trained(stage).items():
            if name not in ("clip_mean", "clip_std"):
                assert torch.equal(network.state_dict()[name], value), (stage, name)
    unet = load_file(model / "decoder" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(fresh["decoder"]["unet"].state_dict()[name], value.float()) for name, value in unet.items())


@pytest.mark.parametrize("model_scale", [False, True])
def test_the_priors_scale_is_the_datas_or_the_models(model: Path, model_scale: bool) -> None:
    network = models.prior(toy_preset().prior, toy_preset().clip, LENGTH)
    nn.init.constant_(network.clip_std, 7.0)
    adopt.initialise(network, "prior", model, model_scale)
    assert bool((network.clip_std == 7).all()) is not model_scale


def test_the_tokenizer_is_the_models(model: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    context = Context(toy_preset(), tmp_path, CPU, log=lambda _: None, model=model)
    context.write_tokenizer()
    assert context.tokenizer.vocabulary == tokenizer.vocabulary and context.tokenizer.merges == tokenizer.merges


def test_realigning_undoes_a_linear_map() -> None:
    torch.manual_seed(3)
    proj = models.text_proj(replace(toy_preset().decoder, channels=(32, 32, 32, 32)), 64).eval()
    nn.init.normal_(proj.learned_classifier_free_guidance_embeddings)
    maps = [(torch.linalg.qr(torch.randn(64, 64))[0] * (1 + torch.rand(64)), torch.randn(64)) for _ in range(3)]
    old = [torch.randn(4000, 64) for _ in range(3)]
    new = [values @ matrix.T + offset for values, (matrix, offset) in zip(old, maps, strict=True)]

    def read(values: list[torch.Tensor]) -> list[torch.Tensor]:
        return list(proj(
            image_embeddings=values[0][:8], prompt_embeds=values[1][:8], text_encoder_hidden_states=values[2][:8, None],
            do_classifier_free_guidance=False,
        ))

    before, unknown = read(old), proj.learned_classifier_free_guidance_embeddings.clone()
    far = [(a - b).abs().max() for a, b in zip(read(new), before, strict=True)]
    adopt.realign(proj, *zip(new, old, strict=True))
    after = read(new)
    for a, b, distance in zip(after, before, far, strict=True):
        assert float((a - b).abs().max()) < 0.01 * float(distance)
    mapped = unknown @ maps[0][0].T + maps[0][1]
    assert torch.allclose(proj.learned_classifier_free_guidance_embeddings, mapped, atol=0.02)


def test_directions_that_never_vary_stay_as_they_are() -> None:
    torch.manual_seed(4)
    given = torch.randn(500, 8) * torch.tensor([1.0] * 4 + [0.0] * 4)
    matrix, offset = adopt.affine(given, 2 * given + 1)
    assert torch.allclose(matrix, torch.diag(torch.tensor([2.0] * 4 + [1.0] * 4)), atol=0.01)
    assert torch.allclose(offset, torch.ones(8), atol=0.01)


# A person's own pictures


def table_of(folder: Path, name: str, content: str) -> None:
    for text in folder.glob("*.txt"):
        text.unlink()
    (folder / name).write_text(content)


@pytest.mark.parametrize(("name", "line"), [
    ("metadata.jsonl", '{{"file_name": "{0}", "text": "{1}"}}'), ("metadata.csv", '{0},"{1}"'), ("captions.csv", '{0},"{1}"'),
])
def test_captions_from_a_table(pictures: Path, name: str, line: str) -> None:
    rows = [line.format(f"{at}.png", f"picture {at}, mine") for at in range(6)] + [line.format("0.png", "another word")]
    table_of(pictures, name, "\n".join([*(["file_name,text"] if name.endswith("csv") else []), *rows]) + "\n")
    found = {Path(sample.name).name: sample.captions for sample in samples([pictures])}
    assert found["0.png"] == ["picture 0, mine", "another word"] and found["5.png"] == ["picture 5, mine"]


def test_names_with_dots_are_different_pictures(pictures: Path) -> None:
    for end in ("png", "txt"):
        for at in (0, 1):
            (pictures / f"{at}.{end}").rename(pictures / f"IMG.{at}.{end}")
    (pictures / "._0.png").write_bytes(b"a file manager's")
    found = {Path(sample.name).name: sample.captions for sample in samples([pictures])}
    assert len(found) == 6 and found["IMG.1.png"] == ["a moon on green"]


def breaking(fault: str, folder: Path) -> None:
    if fault == "empty":
        for file in folder.iterdir():
            file.unlink()
    elif fault == "silent":
        (folder / "3.txt").unlink()
        (folder / "4.txt").write_text(" \n")
    elif fault == "unreadable":
        (folder / "2.png").write_bytes(b"no picture")
        (folder / "5.png").write_bytes((folder / "5.png").read_bytes()[:200])
    elif fault == "latin":
        (folder / "0.txt").write_bytes("caf\xe9".encode("latin-1"))
    elif fault == "unnamed":
        table_of(folder, "metadata.jsonl", '{"file": "0.png"}\n')
    elif fault == "missing":
        table_of(folder, "captions.csv", "file_name,text\n9.png,a dog\n")
    elif fault in ("hidden", "outside", "twice"):
        name = {"hidden": ".0.png", "outside": "../0.png", "twice": "0.txt"}[fault]
        (folder / name).write_bytes((folder / "0.png").read_bytes())
        table_of(folder, "captions.csv", f"file_name,text\n{name},a dog\n")
    elif fault == "quotes":
        table_of(folder, "captions.csv", 'file_name,text\n0.png,"a dog\n')
    elif fault == "deep":
        (folder / "0.txt").unlink()
        (folder / "0.json").write_text("[" * 100_000)
    elif fault == "alone":
        (folder / "3.png").unlink()
    elif fault == "heic":
        (folder / "3.png").rename(folder / "3.HEIC")
    elif fault == "link":
        (folder / "9.png").symlink_to("nowhere.png")
    elif fault == "exif":
        content = (folder / "0.png").read_bytes()
        chunk = b"eXIf" + b"II*\0\x08\0\0\0\xff\xff"
        exif = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        (folder / "0.png").write_bytes(content[:33] + exif + content[33:200])


@pytest.mark.parametrize(("fault", "message"), [
    ("empty", r"no picture \(.jpeg, .jpg, .png, .webp\) is in '.*pictures'"),
    ("silent", r"2 of 6 pictures have no caption: .*3\.png, .*4\.png; write it"),
    ("unreadable", r"2 of 6 pictures cannot be read: .*2\.png \(no picture of a known format\), .*5\.png"),
    ("latin", r"'.*0\.txt' is not text in UTF-8"),
    ("unnamed", r"metadata\.jsonl', line 1, lacks a file_name"),
    ("missing", r"names pictures that are not there .*: 9\.png"), ("hidden", r"not there .*: \.0\.png"),
    ("outside", r"not there .*: \.\./0\.png"), ("twice", r"not there .*: 0\.txt"), ("quotes", "is no table"), ("deep", "is not JSON"),
    ("alone", r"1 captions have no picture beside them: .*3\.txt"), ("heic", r"kinds that are not read .*: .*3\.HEIC"),
    ("link", r"lead nowhere.*9\.png"), ("exif", r"1 of 6 pictures cannot be read: .*0\.png"),
])
def test_what_cannot_be_used_is_told(
    fault: str, message: str, pictures: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    breaking(fault, pictures)
    with pytest.raises(DataError, match=message):
        open_pictures([pictures], tmp_path / "cache", tokenizer, (64,), CPU)
    assert not list((tmp_path / "cache").glob("pictures-????????????????"))


def test_the_end_of_a_long_caption_is_told(pictures: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    (pictures / "1.txt").write_text("cat cat cat cat cat cat cat cat cat cat cat cat cat cat cat cat cat on a mat")
    (pictures / "2.txt").write_text("ẞ☃")  # known as bytes only
    told: list[str] = []
    open_pictures([pictures], tmp_path / "cache", tokenizer, (64,), CPU, told.append)
    assert len(told) == 1
    assert "1 captions are longer than 14 tokens" in told[0] and "1.png: '" in told[0] and told[0].endswith("on a mat'")


# Among emoji scenes


def test_the_share_is_the_same_in_every_part(own: Pictures, scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    few_rows(monkeypatch, 256)
    data = mix(own, scenes, 0.25)
    assert len(data) == 256 and data.group == GROUP
    for rows in (16, 64, 240):
        assert float(data.own[:rows].float().mean()) == 0.75
    assert all(len(set(block.tolist())) == 1 for block in data.own.view(-1, GROUP))
    assert set(data.source[data.own].tolist()) == set(range(6))
    assert data.source[~data.own].tolist() == list(range(64))
    for at in (0, 250, *(~data.own).nonzero()[:3, 0].tolist()):
        source = own if data.own[at] else scenes
        assert torch.equal(data.tokens[at], source.tokens[data.source[at]])
        assert data.meaning[at] == source.meaning[data.source[at]]


def test_nothing_but_pictures_without_rehearsal(own: Pictures) -> None:
    data = mix(own, None, 0.0)
    assert len(data) == ROWS and bool(data.own.all())
    assert data.draw(torch.arange(8), 64).shape == (8, 3, 64, 64)


def test_each_row_is_drawn_from_its_source(own: Pictures, scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    few_rows(monkeypatch)
    data, index = mix(own, scenes, 0.5), torch.tensor([5, 0, 6, 1])
    drawn = data.draw(index, 16)
    assert data.own[index].tolist() == [False, True, False, True]
    assert torch.equal(drawn[[0, 2]], scenes.draw(data.source[index[[0, 2]]], 16))
    assert torch.allclose(drawn[1, :, 0, 0], torch.tensor([1.0, -1.0, -1.0]), atol=0.01)
    assert torch.equal(drawn, data.draw(index, 16))
    corner = corners(data, index, 256, 96, torch.Generator().manual_seed(0))
    assert float(corner.min()) >= 0 and float(corner.max()) <= 1 - 96 / 256
    crops = data.draw(index, 96, corner, 96 / 256)
    assert torch.equal(crops[1:2], own.draw(data.source[index[1:2]], 96, corner[1:2], 96 / 256))


def test_views_shift_and_scale_but_never_flip(own: Pictures) -> None:
    same, right = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[-0.25, 0.0, 1.0]])
    whole = view(own, torch.tensor([0]), same, 64)
    assert float((whole - own.draw(torch.tensor([0]), 64)).abs().mean()) < 0.01
    moved = view(own, torch.tensor([0]), right, 64)
    assert torch.allclose(moved[..., 16:], whole[..., :48], atol=1e-5)
    assert torch.allclose(moved[..., :16], whole[..., :1].expand(-1, -1, -1, 16), atol=1e-2)  # the edge goes on
    found = windows(1000)
    assert float((found[:, 2] - 1).abs().max()) <= 0.06 and float((found[:, :2] + found[:, 2:] / 2 - 0.5).abs().max()) <= 0.041
    for start in (-0.3, 0.0, 0.2):
        assert torch.allclose(cover(torch.tensor([start]), torch.tensor([1.1]), 16, 64).sum(2), torch.ones(1, 16), atol=1e-4)


# Both together


def toy_context(model: Path, pictures: Path, folder: Path, rehearse: float) -> Context:
    preset = fine_tune(adopt.with_sizes_of(TINY, model))

    def short(name: str, **changes: object):  # noqa: ANN202
        stage = getattr(preset, name)
        return replace(stage, run=replace(stage.run, minutes=0, steps=2, batch=8), **changes)

    preset = replace(preset, clip=short("clip"), prior=short("prior", scenes=32), decoder=short("decoder", prior_steps=2))
    return Context(preset, folder, CPU, 1, (pictures,), log=lambda _: None, model=model, rehearse=rehearse)


@pytest.mark.parametrize("rehearse", [0.0, 0.5])
def test_fine_tuning_ends_in_a_model_directory(
    model: Path, pictures: Path, scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rehearse: float
) -> None:
    few_rows(monkeypatch, 128)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("UNCLIP_TRAINING_PACKAGES", str(tmp_path / "none"))
    asked: list[int] = []
    monkeypatch.setattr(Context, "training_scenes", lambda self, count: asked.append(count) or scenes)
    context = toy_context(model, pictures, tmp_path / "run", rehearse)
    for stage in ("tokenizer", "clip", "prior", "decoder"):
        assert train.train_stage(stage, context, Budget(), resume=False, parts=None)
    assert isinstance(context.data, Mixed) and asked == ([64] if rehearse else [])
    export(context, tmp_path / "run" / "model")
    for name, same in (("decoder", False), ("prior", False), ("text_encoder", False), ("super_res_first", True)):
        before, after = (adopt.weights(folder / name) for folder in (model, tmp_path / "run" / "model"))
        assert before.keys() == after.keys()
        assert all(torch.equal(after[key], value) for key, value in before.items()) is same, name


def clips_own_size() -> Tokenizer:
    """Of 49408 tokens, as OpenAI's and Karlo's; the pairs of three letters come last."""
    characters = byte_characters()
    pairs = [(one, other + SUFFIX) for one in sorted(characters, key="moon".count) for other in characters]
    return Tokenizer(tuple(pairs[-(49408 - 2 * len(characters) - 2) :]), LENGTH)


def test_a_vocabulary_beyond_int16_is_trained_and_evaluated(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = clips_own_size()
    ids = tokenizer.encode(["on a moon"])
    assert len(tokenizer.vocabulary) == 49408
    assert ids[0, 0] == 49406 and ids[0, 1] == tokenizer.vocabulary["on</w>"] > 32767 and ids[0, -1] == 49407
    model = random_model(tmp_path / "toy", tokenizer)
    few_rows(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    context = toy_context(model, pictures, tmp_path / "run", 0.0)
    for stage in ("tokenizer", "clip", "prior", "decoder"):
        assert train.train_stage(stage, context, Budget(), resume=False, parts=None)
    assert context.data.tokens.max() == 49407
    export(context, tmp_path / "run" / "model")
    directory.check(tmp_path / "run" / "model")
    tuned = Model(tmp_path / "run" / "model", CPU)
    tuned.steps |= {"prior": 2, "decoder": 2}
    assert torch.equal(tuned.read(["on a moon"]).mask[1], torch.tensor([True] * 7 + [False] * (LENGTH - 7)))
    assert tuned(["on a moon"], 1).isfinite().all()


def stored(context: Context, stage: str) -> dict:
    return torch.load(context.checkpoint(stage), weights_only=True)


def with_steps(context: Context, **steps: int) -> Context:
    """The same run with other budgets."""
    parts = {name: getattr(context.preset, name) for name in steps}
    changed = {name: replace(part, run=replace(part.run, steps=steps[name])) for name, part in parts.items()}
    return Context(replace(context.preset, **changed), context.folder, CPU, 1, context.pictures, log=context.log, model=context.model, rehearse=0.0)


def test_a_stage_goes_on_when_its_budget_has_grown(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few_rows(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = toy_context(model, pictures, tmp_path / "run", 0.0)
    for stage in ("tokenizer", "clip", "prior"):
        train.train_stage(stage, first, Budget(), resume=False, parts=None)
    before = stored(first, "prior")
    assert before["step"] == 2 and train.is_met(first, "prior")
    assert train.train_stage("prior", first, Budget(), resume=True, parts=None)
    assert "prior: has had its 2 steps; --budget prior=MINUTES gives it more" in capsys.readouterr().err
    longer = with_steps(first, prior=5)
    assert not train.is_met(longer, "prior")
    assert train.train_stage("prior", longer, Budget(), resume=True, parts=None)
    assert stored(longer, "prior")["step"] == 5 and train.is_met(longer, "prior")
    shorter = with_steps(first, prior=4)
    assert train.train_stage("prior", shorter, Budget(), resume=True, parts=None) and stored(shorter, "prior")["step"] == 5


def test_readers_of_a_clip_that_goes_on_must_go_on_too(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = toy_context(model, pictures, tmp_path / "run", 0.0)
    for stage in ("clip", "prior"):
        write_atomically(context.checkpoint(stage), {"step": 2, "seconds": 1.0, "average": {}})
    asked, everything = options("--resume", "--stage", "clip,prior"), ["clip", "prior", "decoder"]
    train.check_fit(["clip"], context, asked)
    longer = with_steps(context, clip=3)
    for stages in (["clip"], ["clip", "prior"]):
        with pytest.raises(SystemExit, match="clip goes on, so prior, trained on its embeddings"):
            train.check_fit(stages, longer, asked)
    train.check_fit(everything, with_steps(context, clip=3, prior=3), asked)


def options(*arguments: str):  # noqa: ANN201
    return train.parser().parse_args(arguments)


def test_from_and_data_together_are_fine_tuning(model: Path, pictures: Path) -> None:
    both = options("--from", str(model), "--data", str(pictures), "--budget", "decoder=5", "--budget", "upsampler-1=2")
    preset = train.preset_for(both)
    assert preset.name == "tiny-fine-tuned" and preset.decoder.guidance == 3.5
    assert [name for name in STAGES if not train.is_off(preset, name)] == ["tokenizer", "clip", "prior", "decoder", "upsampler-1"]
    assert preset.decoder.run.minutes == 5 and preset.decoder.run.rate < TINY.decoder.run.rate
    assert train.rehearsed(both) == 0.5
    assert train.preset_for(options("--from", str(model))).decoder.run == TINY.decoder.run
    assert train.rehearsed(options("--data", str(pictures))) is None
    smoke = train.preset_for(options("--from", str(model), "--data", str(pictures), "--smoke"))
    assert smoke.clip.run.steps and train.is_off(smoke, "ar-prior")


@pytest.mark.parametrize(("arguments", "message"), [
    (("--data", "{tmp}/nowhere"), "nowhere' does not exist"), (("--from", "{tmp}"), "is not a model directory"),
    (("--rehearse", "0.5"), "--rehearse is for fine-tuning"),
    (("--from", "{model}", "--data", "{tmp}", "--rehearse", "1"), "is not from 0 to 0.95"),
    (("--from", "{model}", "--data", "{tmp}", "--folder", "{tmp}/run"), "train: no picture"),
])
def test_misuse_is_told_in_a_line(
    arguments: tuple[str, ...], message: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    filled = [argument.format(tmp=tmp_path, model=model) for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["train", "--device", "cpu", *filled])
    for _ in range(2):  # the same after the folder was mended, and not that something exists already
        with pytest.raises(SystemExit, match=message):
            train.main()


def broken_model(fault: str, folder: Path) -> None:
    if fault in ("decoder", "image_encoder", "super_res_last", "prior_scheduler"):
        shutil.rmtree(folder / fault)
    elif fault == "int8":
        save_file({"weight": torch.zeros(2, dtype=torch.int8)}, folder / "prior" / "diffusion_pytorch_model.safetensors")
    elif fault == "vocabulary":
        (folder / "tokenizer" / "vocab.json").write_text("[]")
    elif fault == "json":
        (folder / "text_encoder" / "config.json").write_text("{")
    elif fault in ("v", "noise"):
        name = "super_res_scheduler" if fault == "v" else "prior_scheduler"
        file = folder / name / "scheduler_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": "v_prediction" if fault == "v" else "epsilon"}))
    elif fault == "last":
        file = folder / "super_res_1024_last" / "diffusion_pytorch_model.safetensors"
        save_file({name: value + 1 for name, value in load_file(file).items()}, file)
    elif fault == "shape":
        file = folder / "decoder" / "diffusion_pytorch_model.safetensors"
        save_file({name: value for name, value in load_file(file).items() if name != "conv_in.bias"}, file)


@pytest.mark.parametrize(("fault", "message", "readable"), [
    ("decoder", r"decoder/config.json' is not there", False), ("image_encoder", "has no image_encoder/", True),
    ("super_res_last", "super_res_last/config.json' is not there", False), ("prior_scheduler", "is not there", False),
    ("int8", "has int8 weights", False), ("vocabulary", "holds no settings", False), ("json", "is not JSON", False),
    ("v", "no prediction_type 'v_prediction'", True), ("noise", "does not predict the embedding", True),
    ("last", "super_res_1024_first and super_res_1024_last differ", True), ("shape", "of another kind .* conv_in.bias", True),
])
def test_a_model_that_cannot_be_gone_on_with_is_refused(
    fault: str, message: str, readable: bool, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(model, folder)
    broken_model(fault, folder)
    monkeypatch.setattr(sys, "argv", ["train", "--device", "cpu", "--from", str(folder), "--folder", str(tmp_path / "run")])
    with pytest.raises(SystemExit, match=message):
        train.main()
    if readable:
        directory.check(folder)
        return
    monkeypatch.setattr(sys, "argv", ["evaluate", "--device", "cpu", str(folder), "--judges", str(tmp_path / "run")])
    with pytest.raises(SystemExit, match=message):
        evaluate.main()


def test_what_upsamplers_predict_is_kept(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "noise"
    shutil.copytree(model, folder)
    file = folder / "super_res_1024_scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": "epsilon"}))
    found = adopt.with_sizes_of(TINY, folder)
    assert (found.upsampler_1.prediction, found.upsampler_2.prediction) == ("sample", "epsilon")


@pytest.mark.parametrize(("budgets", "message"), [
    (("decoder=0",), "so decoder, which read"), (("prior=0", "decoder=0"), "so prior and decoder, which read"),
    (("decoder=-1",), "0 or more"), (("clip=nan",), "0 or more"), (("prior=inf",), "0 or more"), (("clip=x",), "is not STAGE=MINUTES"),
])
def test_parts_that_would_not_fit_are_not_trained(
    budgets: tuple[str, ...], message: str, model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [word for budget in budgets for word in ("--budget", budget)]
    arguments = ["--device", "cpu", "--from", str(model), "--data", str(pictures), "--folder", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["train", *arguments, *given])
    with pytest.raises(SystemExit, match=message):
        train.main()
    assert not (tmp_path / "run").exists()


def test_parts_that_do_not_fit_are_not_written(model: Path, tmp_path: Path) -> None:
    context = Context(toy_preset(), tmp_path / "run", CPU, log=lambda _: None, model=model)
    assert context.stale() == [] and context.stale(clip_learns=True) == ["prior", "decoder"]
    write_atomically(context.checkpoint("clip"), {"average": {}})
    write_atomically(context.checkpoint("prior"), {"average": {}})
    assert context.stale() == ["decoder"]
    with pytest.raises(ValueError, match="and decoder have not"):
        export(context, tmp_path / "run" / "model")


def test_clip_decoder_and_prior_may_stay_as_they_are(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [word for stage in ("clip", "prior", "decoder") for word in ("--budget", f"{stage}=0")]
    folder = tmp_path / "run"
    arguments = ["--device", "cpu", "--from", str(model), "--data", str(pictures), "--folder", str(folder)]
    monkeypatch.setattr(sys, "argv", ["train", *arguments, *given])
    train.main()
    before, after = (adopt.weights(place / "prior") for place in (model, folder / "model"))
    assert before.keys() == after.keys() and all(torch.equal(value, after[name]) for name, value in before.items())


def test_the_model_directory_of_the_test_is_complete(model: Path) -> None:
    assert json.loads((model / "unclip.json").read_text())["guidance"]["decoder"] == 3.5


def test_the_examples_source_is_named_where_it_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="fxemoji/icons.json' is not there. UNCLIP_TRAINING_PACKAGES"):
        fifty_pictures.write(tmp_path / "fifty", tmp_path)
    assert not (tmp_path / "fifty").exists()


def test_the_examples_pictures_can_be_used(tmp_path: Path, tokenizer: Tokenizer) -> None:
    icon = '<circle cx="16" cy="16" r="16" fill="#00f"/>'
    packages = tmp_path / "packages" / "@iconify-json" / "fxemoji"
    packages.mkdir(parents=True)
    (packages / "icons.json").write_text(json.dumps({"width": 32, "height": 32, "icons": {name: {"body": icon} for name in fifty_pictures.THINGS}}))
    fifty_pictures.write(tmp_path / "fifty", tmp_path / "packages")
    found = open_pictures([tmp_path / "fifty"], tmp_path / "cache", tokenizer, (64,), CPU)
    assert len(found) == 50 and len(set(found.meaning.tolist())) == 50
    drawn = found.draw(torch.tensor([7]), 64)[0]
    assert torch.allclose(drawn[:, 32, 32], torch.tensor([-1.0, -1.0, 1.0])) and torch.equal(drawn[:, 0, 0], torch.ones(3))
