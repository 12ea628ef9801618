# SPDX-License-Identifier: Apache-2.0
"""What a model directory must have before anything is spent on it: the evaluation reads some that training can't go on
with. `Unfit` says in one line what is wrong.
"""

from __future__ import annotations

import filecmp
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from . import models, tokenizer
from .presets import Preset

LENGTH_MAX = 1024  # of a caption, in tokens
TOKENIZER = ("vocab.json", "merges.txt", "tokenizer_config.json")
NETWORKS = ("text_encoder", "prior", "text_proj", "decoder")
SCHEDULERS = ("prior_scheduler", "decoder_scheduler")
UPSAMPLERS = ("super_res", "super_res_1024")


class Unfit(ValueError):
    """A model directory that can't be used as asked."""


def settings(file: Path) -> dict:
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        raise Unfit(f"'{file}' is not there") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Unfit(f"'{file}' is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Unfit(f"'{file}' holds no settings")
    return found


def headers(folder: Path) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Name, number format and shape of each tensor."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise Unfit(f"'{folder}' has no safetensors file (./training/convert makes them of .bin)")
    for path in files:
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118
                    part = file.get_slice(name)
                    yield name, part.get_dtype(), tuple(part.get_shape())
        except Exception as error:  # safetensors has an error of its own
            raise Unfit(f"'{path}' is damaged: {error}") from None


def check(model: Path) -> None:
    """That the evaluation can read it."""
    settings(model / "model_index.json")
    if (model / "unclip.json").exists():
        settings(model / "unclip.json")
    upsamplers = [name for name in UPSAMPLERS if any((model / f"{name}_{end}").exists() for end in ("first", "last"))]
    networks = [*NETWORKS, *(f"{name}_{end}" for name in upsamplers for end in ("first", "last"))]
    for name in networks:
        settings(model / name / "config.json")
    for name in (*SCHEDULERS, *(f"{name}_scheduler" for name in upsamplers)):
        settings(model / name / "scheduler_config.json")
    extra = [name for name in ("image_encoder", "ar_prior") if (model / name).exists()]
    for name in (*networks, *extra):
        if any(dtype == "I8" for _, dtype, _ in headers(model / name)):
            raise Unfit(f"'{model / name}' has int8 weights; ./training/convert {model} OUT --dtype bf16 makes others")
    check_tokens(model)


def check_tokens(model: Path) -> None:
    folder = model / "tokenizer"
    for name in TOKENIZER:
        if not (folder / name).is_file():
            raise Unfit(f"'{folder / name}' is not there")
    settings(folder / "vocab.json")
    length = settings(folder / "tokenizer_config.json").get("model_max_length")
    if not isinstance(length, int) or not 2 < length <= LENGTH_MAX:
        raise Unfit(f"'{folder}': its model_max_length is {length}, not from 3 to {LENGTH_MAX}")


def prediction_of(model: Path, name: str) -> str:
    """What a network predicts, by its scheduler; diffusers' default is the noise."""
    found = settings(model / name / "scheduler_config.json").get("prediction_type", "epsilon")
    if found not in ("sample", "epsilon"):
        raise Unfit(f"'{model / name}': training knows no prediction_type '{found}'")
    return found


def check_trainable(model: Path) -> None:
    """That training can go on with it: what `check` asks for, all parts, and one network for all steps of an upsampler."""
    for name in ("image_encoder", *(f"{name}_first" for name in UPSAMPLERS)):
        if not (model / name).is_dir():
            raise Unfit(f"'{model}' has no {name}/, which training needs")
    check(model)
    settings(model / "image_encoder" / "config.json")
    if prediction_of(model, "prior_scheduler") != "sample":
        raise Unfit(f"'{model}': its prior does not predict the embedding itself")
    for name in UPSAMPLERS:
        if not same(model / f"{name}_first", model / f"{name}_last"):
            raise Unfit(f"'{model}': {name}_first and {name}_last differ, and training has one network for all steps")


def same(one: Path, other: Path) -> bool:
    """Whether two folders hold the same weights."""
    files = [sorted(folder.glob("*.safetensors")) for folder in (one, other)]
    if len(files[0]) == len(files[1]) and all(filecmp.cmp(a, b, shallow=False) for a, b in zip(*files, strict=True)):
        return True
    left, right = ({name: value for file in some for name, value in load_file(file).items()} for some in files)
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


def check_shapes(model: Path, preset: Preset) -> None:
    """That the networks of a preset, which has the directory's sizes, are those of the directory."""
    for name, network in networks_of(model, preset).items():
        wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        found = {key: shape for key, _, shape in headers(model / name)}
        if differing := [key for key in {**wanted, **found} if wanted.get(key) != found.get(key)]:
            raise Unfit(f"'{model / name}' is of another kind than what training makes: {differing[0]}, for one")


def networks_of(model: Path, preset: Preset) -> dict[str, nn.Module]:
    """Without weights."""
    tokens, clip = tokenizer.load(model / "tokenizer"), preset.clip
    try:
        with torch.device("meta"):
            return {
                "text_encoder": models.text_encoder(clip, tokens.length, len(tokens.vocabulary), tokens.begin, tokens.end),
                "image_encoder": models.image_encoder(clip), "prior": models.prior(preset.prior, clip, tokens.length),
                "text_proj": models.text_proj(preset.decoder, clip.embedding), "decoder": models.decoder(preset.decoder, clip.embedding),
                "super_res_first": models.upsampler(preset.upsampler_1, 256),
                "super_res_1024_first": models.upsampler(preset.upsampler_2, 1024),
            }
    except (KeyError, ValueError) as error:
        raise Unfit(f"'{model}' is of another kind than what training makes: {error}") from None
