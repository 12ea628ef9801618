# SPDX-License-Identifier: Apache-2.0
"""Writes the model directory: Karlo's layout, diffusers' classes, bf16 safetensors, and unclip.json."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from torch import nn

from . import models
from .context import Context
from .diffusion import scheduler
from .layout import KARLO
from .stages import ar_prior
from .stages.prior import CLIP_RANGE

INDEX = {
    "_class_name": "UnCLIPPipeline", "_diffusers_version": "0.33.1",
    **KARLO,
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "super_res_1024_first": ["diffusers", "UNet2DModel"], "super_res_1024_last": ["diffusers", "UNet2DModel"],
    "super_res_1024_scheduler": ["diffusers", "UnCLIPScheduler"],
}


def feature_extractor(size: int) -> dict:
    return {
        "crop_size": {"height": size, "width": size}, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True,
        "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3, "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.5] * 3, "resample": 3, "rescale_factor": 1 / 255, "size": {"shortest_edge": size},
    }


def write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def save(network: nn.Module, folder: Path) -> None:
    network.to("cpu", torch.bfloat16).save_pretrained(folder, safe_serialization=True)


def export(context: Context, folder: Path) -> None:
    """Writes everything beside `folder`, then puts it in its place."""
    if stale := context.stale():
        raise ValueError(f"clip has learnt on, and {' and '.join(stale)} have not: they would not fit")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_networks(context, partial)
    write_settings(context, partial)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    context.log(f"wrote {folder}: {size / 1e6:.1f} MB of weights")


def write_networks(context: Context, folder: Path) -> None:
    preset = context.preset
    embedding = preset.clip.embedding
    context.tokenizer.save(folder / "tokenizer")
    save(context.frozen(context.new_text_encoder(), "clip", "text."), folder / "text_encoder")
    save(context.frozen(models.image_encoder(preset.clip), "clip", "image."), folder / "image_encoder")
    save(context.frozen(models.prior(preset.prior, preset.clip, context.tokenizer.length), "prior"), folder / "prior")
    save(context.frozen(models.text_proj(preset.decoder, embedding), "decoder", "text_proj."), folder / "text_proj")
    save(context.frozen(models.decoder(preset.decoder, embedding), "decoder", "unet."), folder / "decoder")
    for stage, config, size, name in (
        ("upsampler-1", preset.upsampler_1, 256, "super_res"), ("upsampler-2", preset.upsampler_2, 1024, "super_res_1024"),
    ):
        for part in ("first", "last"):  # one network for all steps
            save(context.frozen(models.upsampler(config, size), stage), folder / f"{name}_{part}")
    if context.checkpoint("ar-prior").exists():
        ar_prior.export(context, folder / "ar_prior")


def write_settings(context: Context, folder: Path) -> None:
    preset = context.preset
    scheduler("sample", "fixed_small_log", CLIP_RANGE).save_pretrained(folder / "prior_scheduler")
    scheduler(preset.decoder.prediction, "learned_range").save_pretrained(folder / "decoder_scheduler")
    scheduler(preset.upsampler_1.prediction, "fixed_small_log").save_pretrained(folder / "super_res_scheduler")
    scheduler(preset.upsampler_2.prediction, "fixed_small_log").save_pretrained(folder / "super_res_1024_scheduler")
    write_json(folder / "feature_extractor" / "preprocessor_config.json", feature_extractor(64))
    write_json(folder / "model_index.json", INDEX)
    write_json(folder / "unclip.json", {
        "steps": {
            "prior": preset.prior.steps, "decoder": preset.decoder.steps,
            "upsampler-1": preset.upsampler_1.steps, "upsampler-2": preset.upsampler_2.steps,
        },
        "guidance": {"prior": preset.prior.guidance, "decoder": preset.decoder.guidance},
    })
