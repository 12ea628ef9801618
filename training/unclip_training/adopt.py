# SPDX-License-Identifier: Apache-2.0
"""Starts from a model directory instead of random weights: its sizes, its tokenizer, and the weights of its
networks. The autoregressive prior is left out: its codes are those of one CLIP's embeddings.

CLIP's embeddings move when it learns on, and what the old decoder read from them would be lost. They move almost
linearly, so `realign` puts the map from new to old embeddings into the decoder's first layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from diffusers.pipelines.unclip import UnCLIPTextProjModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from . import tokenizer
from .directory import Unfit, check_shapes, check_trainable, prediction_of
from .directory import settings as read_settings
from .presets import Preset, Upsampler

CLIP_SCALE = 50.0  # of the logits; a model directory doesn't say what it was
RIDGE = 1e-3  # of the mean variance
SOURCES = {  # stage to (prefix of its network's names, folder in the model directory)
    "clip": (("text.", "text_encoder"), ("image.", "image_encoder")),
    "prior": (("", "prior"),),
    "decoder": (("text_proj.", "text_proj"), ("unet.", "decoder")),
    "upsampler-1": (("", "super_res_first"),),
    "upsampler-2": (("", "super_res_1024_first"),),
}


def settings(model: Path, name: str) -> dict:
    return read_settings(model / name / "config.json")


def with_sizes_of(preset: Preset, model: Path) -> Preset:
    """The preset with the sizes of a model directory's networks; rates and budgets stay. Unfit: it can't be gone on with."""
    check_trainable(model)
    try:
        found = sized(preset, model)
    except KeyError as error:
        raise Unfit(f"'{model}': the settings of a network lack {error}") from None
    check_shapes(model, found)
    return found


def sized(preset: Preset, model: Path) -> Preset:
    text, image, prior = (settings(model, name) for name in ("text_encoder", "image_encoder", "prior"))
    decoder, proj = settings(model, "decoder"), settings(model, "text_proj")
    clip = replace(
        preset.clip, width=text["hidden_size"], layers=text["num_hidden_layers"], heads=text["num_attention_heads"],
        image_width=image["hidden_size"], image_layers=image["num_hidden_layers"],
        image_heads=image["num_attention_heads"], patch=image["patch_size"], embedding=text["projection_dim"],
    )
    return replace(
        preset, clip=clip, tokens=replace(preset.tokens, length=text["max_position_embeddings"]),
        prior=replace(preset.prior, layers=prior["num_layers"], heads=prior["num_attention_heads"]),
        decoder=replace(
            preset.decoder, channels=tuple(decoder["block_out_channels"]), blocks=decoder["layers_per_block"],
            context=proj["cross_attention_dim"], head=decoder["attention_head_dim"],
            groups=decoder["norm_num_groups"], prediction=prediction_of(model, "decoder_scheduler"),
        ),
        upsampler_1=like(preset.upsampler_1, model, "super_res"), upsampler_2=like(preset.upsampler_2, model, "super_res_1024"),
    )


def like(upsampler: Upsampler, model: Path, name: str) -> Upsampler:
    config = settings(model, f"{name}_first")
    return replace(
        upsampler, channels=tuple(config["block_out_channels"]), blocks=config["layers_per_block"],
        groups=config["norm_num_groups"], prediction=prediction_of(model, f"{name}_scheduler"),
    )


def with_steps_of(preset: Preset, model: Path) -> Preset:
    """The preset with the steps and guidance scales that a model directory recommends."""
    settings_file = model / "unclip.json"
    if not settings_file.exists():
        return preset
    found = read_settings(settings_file)
    steps, guidance = found.get("steps", {}), found.get("guidance", {})

    def part(name: str, **values: object):  # noqa: ANN202
        return replace(getattr(preset, name), **{key: value for key, value in values.items() if value is not None})

    return replace(
        preset,
        prior=part("prior", steps=steps.get("prior"), guidance=guidance.get("prior")),
        decoder=part("decoder", steps=steps.get("decoder"), guidance=guidance.get("decoder")),
        upsampler_1=part("upsampler_1", steps=steps.get("upsampler-1")),
        upsampler_2=part("upsampler_2", steps=steps.get("upsampler-2")),
    )


def tokens_of(model: Path) -> dict:
    """The tokenizer's checkpoint."""
    found = tokenizer.load(model / "tokenizer")
    return {"merges": [list(pair) for pair in found.merges], "length": found.length, "tokens": list(found.tokens)}


def weights(folder: Path) -> dict[str, Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder} has no safetensors file")
    return {name: value for file in files for name, value in load_file(file).items()}


def state_of(model: Path, stage: str) -> dict[str, Tensor]:
    """The weights of a stage's network, named as in its checkpoint."""
    state = {
        prefix + name: value.float()
        for prefix, folder in SOURCES[stage] for name, value in weights(model / folder).items()
    }
    return state | {"log_scale": torch.tensor(math.log(CLIP_SCALE))} if stage == "clip" else state


def initialise(network: nn.Module, stage: str, model: Path, model_scale: bool = False) -> None:
    """Gives a stage's network the weights of a model directory. The prior keeps its own scale of the embedding, that
    of the data at hand, unless `model_scale`: of a few pictures the scale says little.
    """
    state = state_of(model, stage)
    if stage == "prior" and not model_scale:
        state |= {name: network.state_dict()[name] for name in ("clip_mean", "clip_std")}
    network.load_state_dict(state)


def affine(given: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The map [D, D] and offset that take rows of `given` [n, D] closest to `wanted` [n, D]: ridge regression, where
    directions that hardly vary are left as they are.
    """
    centre = given.mean(0)
    spread = (given - centre).double()
    gram = spread.T @ spread
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device)
    matrix = torch.linalg.solve(gram + ridge, spread.T @ (wanted - wanted.mean(0)).double() + ridge).float().T
    return matrix, wanted.mean(0) - matrix @ centre


@torch.no_grad()
def read_through(layer: nn.Linear, matrix: Tensor, offset: Tensor) -> None:
    layer.bias += layer.weight @ offset
    layer.weight.copy_(layer.weight @ matrix)


@torch.no_grad()
def realign(
    text_proj: UnCLIPTextProjModel, pictures: tuple[Tensor, Tensor], embeddings: tuple[Tensor, Tensor], states: tuple[Tensor, Tensor]
) -> None:
    """Makes the decoder read new embeddings as it read the old ones; each pair is (new, old) of the same things."""
    matrix, offset = affine(*pictures)
    read_through(text_proj.clip_image_embeddings_project_to_time_embeddings, matrix, offset)
    read_through(text_proj.clip_extra_context_tokens_proj, matrix, offset)
    unknown = text_proj.learned_classifier_free_guidance_embeddings
    unknown.copy_(torch.linalg.pinv(matrix, rtol=0.01) @ (unknown - offset))
    read_through(text_proj.embedding_proj, *affine(*embeddings))
    read_through(text_proj.encoder_hidden_states_proj, *affine(*states))


def old_encoders(model: Path, device: torch.device) -> tuple[CLIPTextModelWithProjection, CLIPVisionModelWithProjection]:
    def load(kind: Callable, name: str) -> nn.Module:
        return kind(model / name).to(device, torch.float32).eval().requires_grad_(False)

    return (
        load(CLIPTextModelWithProjection.from_pretrained, "text_encoder"),
        load(CLIPVisionModelWithProjection.from_pretrained, "image_encoder"),
    )
