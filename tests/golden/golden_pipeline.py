"""UnCLIPPipeline from text to the upsampler's picture: mini's several ways, and the shipped model once.

The pipeline is put together from its components with the fast tokenizer: from_pretrained would load
the slow one, and does not know the 1024 stage. Every picture has its own generator, seeded seed + i.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import PriorTransformer, UnCLIPPipeline, UnCLIPScheduler, UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.unclip import UnCLIPTextProjModel
from transformers import CLIPTextModelWithProjection, CLIPTokenizerFast

from inputs import model_folder
from store import big, save

EMOJI = Path(__file__).parents[2] / "models" / "emoji"


@dataclass(frozen=True)
class Case:
    """A call of the pipeline; `kept` are the decoder's steps whose samples are stored."""

    prompt: str
    seed: int
    images: int = 2
    steps: tuple[int, int, int] = (25, 25, 7)
    guidance: tuple[float, float] = (4.0, 8.0)
    kept: tuple[int, ...] = (0, 12, 24)


MINI_CASES = {
    "seed-0": Case("a red heart", 0),
    "seed-7": Case("红色背景上的熊猫 🐼", 7, steps=(7, 5, 3), guidance=(2.0, 3.0), kept=(0, 4)),
    "half-guided": Case("a castle on a hill", 7, 1, steps=(4, 4, 4), guidance=(1.0, 3.0), kept=(0, 3)),
    "unguided": Case("a castle on a hill", 7, 1, steps=(4, 4, 4), guidance=(1.0, 1.0), kept=(0, 3)),
}
STORED_CASE = Case("a red heart", 0, 1, steps=(4, 4, 4), kept=(0, 3))
EMOJI_CASE = Case("a red heart", 42, 1, guidance=(2.0, 2.0))


class RecordingScheduler(UnCLIPScheduler):
    """Keeps the sample after each step."""

    samples: list[torch.Tensor]

    def set_timesteps(self, *args: object, **kwargs: object) -> None:
        self.samples = []
        super().set_timesteps(*args, **kwargs)

    def step(self, *args: object, **kwargs: object):
        result = super().step(*args, **kwargs)
        self.samples.append(result.prev_sample)
        return result


def build(folder: Path) -> UnCLIPPipeline:
    networks = {
        "prior": PriorTransformer,
        "decoder": UNet2DConditionModel,
        "text_proj": UnCLIPTextProjModel,
        "super_res_first": UNet2DModel,
        "super_res_last": UNet2DModel,
    }
    pipeline = UnCLIPPipeline(
        text_encoder=CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32),
        tokenizer=CLIPTokenizerFast.from_pretrained(folder / "tokenizer"),
        **{n: c.from_pretrained(folder / n, low_cpu_mem_usage=False) for n, c in networks.items()},
        **{
            f"{stage}_scheduler": RecordingScheduler.from_pretrained(folder / f"{stage}_scheduler")
            for stage in ("prior", "decoder", "super_res")
        },
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run(name: str, folder: Path, case: Case, **settings: object) -> None:
    pipeline = build(folder)
    texts = []
    pipeline.text_encoder.register_forward_hook(lambda _module, _inputs, output: texts.append(output))
    images = pipeline(
        case.prompt,
        num_images_per_prompt=case.images,
        prior_num_inference_steps=case.steps[0],
        decoder_num_inference_steps=case.steps[1],
        super_res_num_inference_steps=case.steps[2],
        prior_guidance_scale=case.guidance[0],
        decoder_guidance_scale=case.guidance[1],
        generator=[torch.Generator().manual_seed(case.seed + i) for i in range(case.images)],
        output_type="np",
    ).images
    prior, decoder = pipeline.prior_scheduler.samples, pipeline.decoder_scheduler.samples
    tensors: dict[str, object] = {
        "out.text_embeds": torch.cat([text.text_embeds for text in texts]),
        "out.last_hidden_state": torch.cat([text.last_hidden_state for text in texts]),
        "mid.prior": torch.stack(prior),
        "out.image_embeds": pipeline.prior.post_process_latents(prior[-1]),
        **{f"mid.decoder.{index}": decoder[index] for index in case.kept},
        "out.decoder": decoder[-1].clamp(-1, 1),
        **big("out.super_res", pipeline.super_res_scheduler.samples[-1]),
        "out.image": (images * 255).round().astype(np.uint8),
    }
    save(
        f"pipeline-{name}",
        tensors,
        prompt=case.prompt,
        seed=case.seed,
        images=case.images,
        prior_steps=case.steps[0],
        decoder_steps=case.steps[1],
        super_res_steps=case.steps[2],
        prior_guidance=case.guidance[0],
        decoder_guidance=case.guidance[1],
        **settings,
    )


def generate() -> None:
    for name, case in MINI_CASES.items():
        run(f"mini-{name}", model_folder("mini"), case, model="mini", dtype="f32")
    for dtype in ("f16", "bf16"):
        run(f"mini-{dtype}", model_folder("mini", dtype), STORED_CASE, model="mini", dtype=dtype)
    start = time.perf_counter()
    run("emoji", EMOJI, EMOJI_CASE, model="emoji", dtype="bf16")
    print(f"  the shipped model's picture: {time.perf_counter() - start:.1f} s, loading included")
