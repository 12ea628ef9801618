"""diffusers' side of whole pictures: UnCLIPPipeline, kept alive; a line of JSON to each line.

"SEED COUNT PATH" makes pictures SEED … SEED + COUNT - 1 as one batch and writes their bytes,
[n, h, w, 3], to PATH.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers import UnCLIPPipeline
from diffusers.pipelines.unclip import pipeline_unclip
from diffusers.schedulers import UnCLIPScheduler, scheduling_unclip
from diffusers.utils.torch_utils import randn_tensor
from transformers import CLIPTokenizerFast

from . import karlo

# UnCLIPPipeline's components, beside tokenizer and schedulers, by the names of karlo.NETWORKS.
COMPONENTS = {
    "text_encoder": "text",
    "prior": "prior",
    "text_proj": "text-proj",
    "decoder": "decoder",
    "super_res_first": "upsampler-1",
    "super_res_last": "upsampler-1-last",
}


def open_pipeline(model: Path, dtype: torch.dtype) -> UnCLIPPipeline:
    """from_pretrained() would initialise all weights at random first."""
    networks = {}
    for component, network in COMPONENTS.items():
        config = json.loads((model / component / "config.json").read_text())
        networks[component] = karlo.load(model, network, dtype, config)
    schedulers = {
        name: UnCLIPScheduler.from_pretrained(model / name)
        for name in ("prior_scheduler", "decoder_scheduler", "super_res_scheduler")
    }
    pipeline = UnCLIPPipeline(
        tokenizer=CLIPTokenizerFast.from_pretrained(model / "tokenizer"), **networks, **schedulers
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def enlarge_in_f32() -> None:
    """torch has no bicubic interpolation of bf16 on CPUs: the pipeline's one call of it takes f32."""
    plain = torch.nn.functional.interpolate

    def interpolate(x: torch.Tensor, **how: object) -> torch.Tensor:
        return plain(x.float(), **how).to(x.dtype)

    pipeline_unclip.F = SimpleNamespace(**vars(torch.nn.functional) | {"interpolate": interpolate})


def draw_in_f32() -> None:
    """In bf16 torch's generators give other numbers, so another picture than the engine's."""

    def draw(*shape: object, dtype: torch.dtype, **how: object) -> torch.Tensor:
        return randn_tensor(*shape, dtype=torch.float32, **how).to(dtype)

    pipeline_unclip.randn_tensor = scheduling_unclip.randn_tensor = draw


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("prompt")
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--steps", type=int, nargs=3, required=True)
    parser.add_argument("--guidance", type=float, nargs=2, required=True)
    parser.add_argument("--layout", choices=("contiguous", "channels_last"), required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    enlarge_in_f32()
    draw_in_f32()
    pipeline = open_pipeline(arguments.model, karlo.DTYPES[arguments.dtype])
    if arguments.layout == "channels_last":
        for name in ("decoder", "super_res_first", "super_res_last"):
            getattr(pipeline, name).to(memory_format=torch.channels_last)
    prior_steps, decoder_steps, super_res_steps = arguments.steps
    print(json.dumps({"torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        seed, count, path = line.split()
        begin = time.perf_counter()
        with torch.inference_mode():
            out = pipeline(
                [arguments.prompt] * int(count),
                generator=[torch.Generator().manual_seed(int(seed) + i) for i in range(int(count))],
                prior_num_inference_steps=prior_steps,
                decoder_num_inference_steps=decoder_steps,
                super_res_num_inference_steps=super_res_steps,
                prior_guidance_scale=arguments.guidance[0],
                decoder_guidance_scale=arguments.guidance[1],
                output_type="np",
            ).images
        seconds = time.perf_counter() - begin
        (out * 255).round().astype("uint8").tofile(path)
        print(json.dumps({"seconds": seconds, "size": out.shape[1]}), flush=True)


if __name__ == "__main__":
    main()
