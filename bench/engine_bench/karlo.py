"""Models of Karlo's configuration with random weights, and inputs for one forward pass of each network.

The configurations are those of tests/golden's karlo-narrow with Karlo's own widths. Every tensor is a
piece of one block of random numbers, scaled as the goldens' are, so that gigabytes come in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import golden_models
import torch
from diffusers import PriorTransformer, UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.unclip import UnCLIPTextProjModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}

WIDTHS = [320, 640, 960, 1280]
DIM, CONTEXT_DIM, TOKENS = 768, 1536, golden_models.KARLO_CONTEXT
CONTEXT_TOKENS = 4 + TOKENS
TIMESTEP = 500

PRIOR = golden_models.KARLO_PRIOR | {"attention_head_dim": 64, "embedding_dim": DIM}
TEXT_PROJ = golden_models.KARLO_TEXT_PROJ | {
    "clip_embeddings_dim": DIM,
    "cross_attention_dim": CONTEXT_DIM,
    "time_embed_dim": 4 * WIDTHS[0],
}
DECODER = golden_models.KARLO_DECODER | {
    "attention_head_dim": 64,
    "block_out_channels": WIDTHS,
    "cross_attention_dim": CONTEXT_DIM,
}
SUPER_RES = golden_models.KARLO_SUPER_RES | {"block_out_channels": WIDTHS}
# Karlo has no 256 → 1024 stage: the paper's table 3.
SUPER_RES_1024 = SUPER_RES | {
    "block_out_channels": [192, 192, 384, 384, 768, 768],
    "down_block_types": ["ResnetDownsampleBlock2D"] * 6,
    "layers_per_block": 2,
    "sample_size": 1024,
    "up_block_types": ["ResnetUpsampleBlock2D"] * 6,
}
TEXT = golden_models.KARLO_TEXT | {"hidden_size": DIM, "intermediate_size": 4 * DIM, "projection_dim": DIM}
VISION = golden_models.KARLO_VISION | {"hidden_size": 1024, "intermediate_size": 4096, "projection_dim": DIM}

# network: (its class, its folder in a model directory, its configuration)
NETWORKS = {
    "text": (CLIPTextModelWithProjection, "text_encoder", TEXT | {"vocab_size": 49408}),
    "prior": (PriorTransformer, "prior", PRIOR),
    "prior-step": (PriorTransformer, "prior", PRIOR),
    "text-proj": (UnCLIPTextProjModel, "text_proj", TEXT_PROJ),
    "decoder": (UNet2DConditionModel, "decoder", DECODER),
    "decoder-step": (UNet2DConditionModel, "decoder", DECODER),
    "upsampler-1": (UNet2DModel, "super_res_first", SUPER_RES),
    "upsampler-1-last": (UNet2DModel, "super_res_last", SUPER_RES | {"sample_size": None}),
    "upsampler-2": (UNet2DModel, "super_res_1024_first", SUPER_RES_1024),
    "image": (CLIPVisionModelWithProjection, "image_encoder", VISION),
}
PIPELINE = ("text", "prior", "text-proj", "decoder", "upsampler-1", "upsampler-1-last")


@contextmanager
def uninitialised() -> Iterator[None]:
    """Modules made inside have weights of any value: they are about to be replaced."""

    def nothing(self: torch.nn.Module) -> None:
        pass

    with ExitStack() as stack:
        for kind in (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Embedding):
            stack.enter_context(patch.object(kind, "reset_parameters", nothing))
        yield


def make(network: str, config: dict[str, object] | None = None) -> torch.nn.Module:
    """The network without its weights."""
    kind, _, own = NETWORKS[network]
    config = config or own
    with uninitialised():
        if kind is CLIPTextModelWithProjection:
            return kind._from_config(CLIPTextConfig(**config))
        if kind is CLIPVisionModelWithProjection:
            return kind._from_config(CLIPVisionConfig(**config))
        return kind.from_config(config)


def folder(model: Path, network: str) -> Path:
    return model / NETWORKS[network][1]


def weights_file(model: Path, network: str) -> Path:
    diffusers = network not in ("text", "image")
    return folder(model, network) / (golden_models.DIFFUSERS_FILE if diffusers else golden_models.TRANSFORMERS_FILE)


class Noise:
    """Pieces of one block of uniform numbers in [-0.5, 0.5)."""

    BLOCK = 1 << 24

    def __init__(self, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(7)
        self.block = (torch.rand(self.BLOCK, generator=generator) - 0.5).to(dtype)
        self.offset = 0

    def take(self, shape: tuple[int, ...], scale: float, offset: float) -> torch.Tensor:
        count = torch.Size(shape).numel()
        self.offset = (self.offset + 7919) % self.BLOCK
        out = torch.empty(count, dtype=self.block.dtype)
        done = 0
        start = self.offset
        while done < count:
            part = min(count - done, self.BLOCK - start)
            torch.mul(self.block[start : start + part], scale, out=out[done : done + part])
            done, start = done + part, 0
        return (out.add_(offset) if offset else out).reshape(shape)


def write_network(model: Path, network: str, dtype: str) -> None:
    """config.json and the weights, unless they are there."""
    path = weights_file(model, network)
    if path.exists():
        return
    golden_models.write_json(path.parent / "config.json", NETWORKS[network][2])
    noise = Noise(DTYPES[dtype])
    with torch.device("meta"):
        shapes = make(network).state_dict()
    tensors = {name: noise.take(t.shape, *golden_models.spread(name, tuple(t.shape))) for name, t in shapes.items()}
    save_file(tensors, path, {"format": "pt"})


def write_pipeline(model: Path, dtype: str) -> None:
    """A whole model directory, as UnCLIPPipeline and the engine load it; the tokenizer is the test models'."""
    golden_models.write_index(model, "UnCLIPPipeline", golden_models.CLASSES, golden_models.KARLO_VERSION)
    golden_models.write_tokenizer(model / "tokenizer", TOKENS)
    golden_models.write_schedulers(model, golden_models.SCHEDULERS, golden_models.KARLO_VERSION)
    for network in PIPELINE:
        write_network(model, network, dtype)


def load(model: Path, network: str, dtype: torch.dtype, config: dict[str, object] | None = None) -> torch.nn.Module:
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        module = make(network, config)
    finally:
        torch.set_default_dtype(default)
    weights = {name: tensor.to(dtype) for name, tensor in load_file(weights_file(model, network)).items()}
    module.load_state_dict(weights, assign=True)
    return module.eval()


def inputs(network: str, batch: int) -> dict[str, torch.Tensor]:
    """What one forward pass takes, in torch's layouts; f32 and i32."""
    generator = torch.Generator().manual_seed(11)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(batch, *shape, generator=generator)

    def mask(length: int) -> torch.Tensor:
        kept = torch.tensor([[length // 2 if i % 2 else 9] for i in range(batch)])
        return (torch.arange(length)[None] < kept).float()

    match network:
        case "text":
            return {"ids": torch.randint(1000, (batch, TOKENS), generator=generator, dtype=torch.int32)}
        case "image":
            return {"pixels": normal(3, 224, 224)}
        case "prior" | "prior-step":
            return {
                "latents": normal(DIM),
                "text_embed": normal(DIM),
                "text_states": normal(TOKENS, DIM),
                "mask": mask(TOKENS),
            }
        case "decoder" | "decoder-step":
            own = torch.ones(batch, CONTEXT_TOKENS - TOKENS)
            return {
                "sample": normal(3, 64, 64),
                "context": normal(CONTEXT_TOKENS, CONTEXT_DIM),
                "class_embed": normal(4 * WIDTHS[0]),
                "mask": torch.cat([own, mask(TOKENS)], dim=1),
            }
        case "upsampler-1":
            return {"sample": normal(6, 256, 256)}
        case "upsampler-2":
            return {"sample": normal(6, 1024, 1024)}
    raise ValueError(network)


def call(network: str, module: torch.nn.Module, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """diffusers' forward pass on inputs()."""
    match network:
        case "text":
            return module(given["ids"]).text_embeds
        case "image":
            return module(given["pixels"]).image_embeds
        case "prior" | "prior-step":
            return module(
                given["latents"],
                timestep=TIMESTEP,
                proj_embedding=given["text_embed"],
                encoder_hidden_states=given["text_states"],
                attention_mask=given["mask"] > 0,
            ).predicted_image_embedding
        case "decoder" | "decoder-step":
            return module(
                given["sample"],
                timestep=TIMESTEP,
                encoder_hidden_states=given["context"],
                class_labels=given["class_embed"],
                attention_mask=given["mask"] > 0,
            ).sample
        case _:
            return module(given["sample"], TIMESTEP).sample


def write_inputs(path: Path, given: dict[str, torch.Tensor]) -> None:
    """For the engine: pictures as [n, h, w, c]."""
    nhwc = {name: t.permute(0, 2, 3, 1).contiguous() if t.ndim == 4 else t for name, t in given.items()}
    save_file(nhwc, path)
