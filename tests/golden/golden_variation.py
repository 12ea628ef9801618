"""UnCLIPImageVariationPipeline: other pictures like a given one, with mini's networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import UnCLIPImageVariationPipeline, UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.unclip import UnCLIPTextProjModel
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    CLIPTextModelWithProjection,
    CLIPTokenizerFast,
    CLIPVisionModelWithProjection,
)

from golden_pipeline import RecordingScheduler
from golden_processor import picture
from inputs import model_folder
from store import big, save

IMAGES, STEPS, SEED = 2, (5, 3), 11
# name: height and width of the picture, the decoder's guidance
CASES = {"wide": (37, 50, 3.0), "unguided": (32, 32, 1.0)}


def build(folder: Path) -> UnCLIPImageVariationPipeline:
    networks = {
        "decoder": UNet2DConditionModel,
        "text_proj": UnCLIPTextProjModel,
        "super_res_first": UNet2DModel,
        "super_res_last": UNet2DModel,
    }
    pipeline = UnCLIPImageVariationPipeline(
        text_encoder=CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32),
        tokenizer=CLIPTokenizerFast.from_pretrained(folder / "tokenizer"),
        image_encoder=CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder", torch_dtype=torch.float32),
        feature_extractor=CLIPImageProcessor.from_pretrained(folder / "feature_extractor"),
        **{n: c.from_pretrained(folder / n, low_cpu_mem_usage=False) for n, c in networks.items()},
        **{
            f"{stage}_scheduler": RecordingScheduler.from_pretrained(folder / f"{stage}_scheduler")
            for stage in ("decoder", "super_res")
        },
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run(name: str, pipeline: UnCLIPImageVariationPipeline, height: int, width: int, guidance: float) -> None:
    image = picture(f"variation-{name}", height, width)
    embeds = []
    hook = pipeline.image_encoder.register_forward_hook(lambda _m, _i, output: embeds.append(output.image_embeds))
    images = pipeline(
        Image.fromarray(image),
        num_images_per_prompt=IMAGES,
        decoder_num_inference_steps=STEPS[0],
        super_res_num_inference_steps=STEPS[1],
        decoder_guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(SEED + i) for i in range(IMAGES)],
        output_type="np",
    ).images
    hook.remove()
    save(
        f"variation-{name}",
        {
            "in.image": image,
            "out.image_embeds": embeds[0],
            "out.decoder": pipeline.decoder_scheduler.samples[-1].clamp(-1, 1),
            **big("out.super_res", pipeline.super_res_scheduler.samples[-1]),
            "out.image": (images * 255).round().astype(np.uint8),
        },
        model="mini",
        seed=SEED,
        images=IMAGES,
        decoder_steps=STEPS[0],
        super_res_steps=STEPS[1],
        decoder_guidance=guidance,
    )


def generate() -> None:
    pipeline = build(model_folder("mini"))
    for name, (height, width, guidance) in CASES.items():
        run(name, pipeline, height, width, guidance)
