"""The test models as manifest directories: config files, tokenizers and weights.manifest files.

`mini` has every component, each as small as it can be. `karlo-narrow` is Karlo's own structure (depths,
head counts, groups, levels) with few channels, its config.json files with only the keys that Karlo's
have; `karlo-narrow-variations` is the image encoder that goes with it.
"""

from __future__ import annotations

import json
import shutil
from math import sqrt
from pathlib import Path

import torch
from diffusers import PriorTransformer, UNet2DConditionModel, UNet2DModel
from diffusers.configuration_utils import ConfigMixin
from diffusers.pipelines.unclip import UnCLIPTextProjModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

import train_tokenizer
from synth import MANIFEST, Manifest, Tensor
from twin import priors

MODELS = Path(__file__).parent / "models"
TOKENS = 512 + train_tokenizer.MERGES + 2
BOS, EOS = TOKENS - 2, TOKENS - 1

DIFFUSERS_FILE = "diffusion_pytorch_model.safetensors"
TRANSFORMERS_FILE = "model.safetensors"

# ---- mini ----

MINI_CONTEXT = 24
MINI_DIM = 32

MINI_TEXT = CLIPTextConfig(
    vocab_size=TOKENS,
    hidden_size=MINI_DIM,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=MINI_CONTEXT,
    projection_dim=MINI_DIM,
    bos_token_id=BOS,
    eos_token_id=EOS,
    pad_token_id=EOS,
)
MINI_VISION = CLIPVisionConfig(
    hidden_size=24,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=3,
    image_size=32,
    patch_size=8,
    projection_dim=MINI_DIM,
    hidden_act="gelu",
)
MINI_PRIOR = dict(
    num_attention_heads=4,
    attention_head_dim=8,
    num_layers=2,
    embedding_dim=MINI_DIM,
    num_embeddings=MINI_CONTEXT,
    additional_embeddings=4,
)
MINI_AR_PRIOR = {
    "_class_name": "UnCLIPAutoregressivePrior",
    "embedding_dim": MINI_DIM,
    "text_dim": MINI_DIM,
    "num_embeddings": MINI_CONTEXT,
    "width": 24,
    "num_layers": 2,
    "num_attention_heads": 3,
    "dimensions": 12,
    "buckets": 16,
    "dot_buckets": 8,
    "layer_norm_eps": 1e-5,
}
MINI_TEXT_PROJ = dict(
    clip_extra_context_tokens=4, clip_embeddings_dim=MINI_DIM, time_embed_dim=64, cross_attention_dim=40
)
MINI_DECODER = dict(
    sample_size=16,
    in_channels=3,
    out_channels=6,
    down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D", "SimpleCrossAttnDownBlock2D"),
    mid_block_type="UNetMidBlock2DSimpleCrossAttn",
    up_block_types=("SimpleCrossAttnUpBlock2D", "SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    block_out_channels=(16, 24, 32),
    layers_per_block=1,
    norm_num_groups=8,
    cross_attention_dim=40,
    attention_head_dim=8,
    class_embed_type="identity",
    resnet_time_scale_shift="scale_shift",
)


def mini_super_res(sample_size: int, time_scale_shift: str) -> dict[str, object]:
    return dict(
        sample_size=sample_size,
        in_channels=6,
        out_channels=3,
        down_block_types=("ResnetDownsampleBlock2D",) * 3,
        up_block_types=("ResnetUpsampleBlock2D",) * 3,
        block_out_channels=(8, 16, 16),
        layers_per_block=1,
        norm_num_groups=4,
        add_attention=False,
        resnet_time_scale_shift=time_scale_shift,
    )


# ---- karlo-narrow: the files as diffusers 0.11 and transformers 4.25 wrote them ----

KARLO_DIM = 48
KARLO_CONTEXT = 77
KARLO_CHANNELS = [32, 64, 96, 128]
KARLO_VERSION = "0.11.0.dev0"

KARLO_PRIOR = {
    "_class_name": "PriorTransformer",
    "_diffusers_version": KARLO_VERSION,
    "additional_embeddings": 4,
    "attention_head_dim": 4,
    "dropout": 0.0,
    "embedding_dim": KARLO_DIM,
    "num_attention_heads": 32,
    "num_embeddings": KARLO_CONTEXT,
    "num_layers": 20,
}
KARLO_TEXT_PROJ = {
    "_class_name": "UnCLIPTextProjModel",
    "_diffusers_version": KARLO_VERSION,
    "clip_embeddings_dim": KARLO_DIM,
    "clip_extra_context_tokens": 4,
    "cross_attention_dim": 96,
    "time_embed_dim": 4 * KARLO_CHANNELS[0],
}
KARLO_DECODER = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": KARLO_VERSION,
    "act_fn": "silu",
    "attention_head_dim": 16,
    "block_out_channels": KARLO_CHANNELS,
    "center_input_sample": False,
    "class_embed_type": "identity",
    "cross_attention_dim": 96,
    "down_block_types": ["ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3],
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 3,
    "layers_per_block": 3,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "out_channels": 6,
    "resnet_time_scale_shift": "scale_shift",
    "sample_size": 64,
    "up_block_types": [*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"],
    "upcast_attention": False,
    "use_linear_projection": False,
}
KARLO_SUPER_RES = {
    "_class_name": "UNet2DModel",
    "_diffusers_version": KARLO_VERSION,
    "act_fn": "silu",
    "add_attention": False,
    "attention_head_dim": 8,
    "block_out_channels": KARLO_CHANNELS,
    "center_input_sample": False,
    "down_block_types": ["ResnetDownsampleBlock2D"] * 4,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 6,
    "layers_per_block": 3,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 3,
    "resnet_time_scale_shift": "default",
    "sample_size": 256,
    "time_embedding_type": "positional",
    "up_block_types": ["ResnetUpsampleBlock2D"] * 4,
}
KARLO_TEXT = {
    "_name_or_path": "openai/clip-vit-large-patch14",
    "architectures": ["CLIPTextModelWithProjection"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": KARLO_DIM,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 4 * KARLO_DIM,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": KARLO_CONTEXT,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": KARLO_DIM,
    "torch_dtype": "float32",
    "transformers_version": "4.25.0.dev0",
    "vocab_size": TOKENS,
}
KARLO_VISION = {
    "_name_or_path": "openai/clip-vit-large-patch14",
    "architectures": ["CLIPVisionModelWithProjection"],
    "attention_dropout": 0.0,
    "dropout": 0.0,
    "hidden_act": "quick_gelu",
    "hidden_size": 64,
    "image_size": 224,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 256,
    "layer_norm_eps": 1e-05,
    "model_type": "clip_vision_model",
    "num_attention_heads": 16,
    "num_channels": 3,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": KARLO_DIM,
    "torch_dtype": "float32",
    "transformers_version": "4.25.0.dev0",
}

SCHEDULERS = {
    "prior_scheduler": dict(clip_sample_range=5.0, prediction_type="sample", variance_type="fixed_small_log"),
    "decoder_scheduler": dict(clip_sample_range=1.0, prediction_type="epsilon", variance_type="learned_range"),
    "super_res_scheduler": dict(clip_sample_range=1.0, prediction_type="epsilon", variance_type="fixed_small_log"),
}

CLASSES = {
    "decoder": ("diffusers", "UNet2DConditionModel"),
    "decoder_scheduler": ("diffusers", "UnCLIPScheduler"),
    "prior": ("diffusers", "PriorTransformer"),
    "prior_scheduler": ("diffusers", "UnCLIPScheduler"),
    "super_res_first": ("diffusers", "UNet2DModel"),
    "super_res_last": ("diffusers", "UNet2DModel"),
    "super_res_scheduler": ("diffusers", "UnCLIPScheduler"),
    "text_encoder": ("transformers", "CLIPTextModelWithProjection"),
    "text_proj": ("unclip", "UnCLIPTextProjModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
}
EXTRA_CLASSES = {
    "image_encoder": ("transformers", "CLIPVisionModelWithProjection"),
    "feature_extractor": ("transformers", "CLIPImageProcessor"),
    "super_res_1024_first": ("diffusers", "UNet2DModel"),
    "super_res_1024_last": ("diffusers", "UNet2DModel"),
    "super_res_1024_scheduler": ("diffusers", "UnCLIPScheduler"),
}


# ---- scales ----


EMBEDDINGS = (
    "token_embedding.weight",
    "position_embedding.weight",
    "positional_embedding",
    "prd_embedding",
    "class_embedding",
    "learned_classifier_free_guidance_embeddings",
    "dot_in.weight",
    "bucket_in.weight",
    "position",
    "quantiser.centres",
)
# Sharper than 1, so that attention is clearly uneven.
QUERIES_AND_KEYS = ("to_q.weight", "to_k.weight", "qkv.weight", "add_k_proj.weight", "q_proj.weight", "k_proj.weight")


def spread(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """(scale, offset) of a tensor, so that activations stay near 1 whatever the widths."""
    if name.endswith("bias"):
        return 0.4, 0.0
    if "norm" in name or name == "clip_std":
        return 0.5, 1.0
    if name.endswith(EMBEDDINGS):
        return 1.5, 0.0
    if name in ("clip_mean", "quantiser.mean"):
        return 1.0, 0.0
    fan_in = torch.Size(shape[1:]).numel()
    # A weak last layer keeps guided trajectories of random networks from amplifying rounding.
    gain = 1.5 if name.endswith(QUERIES_AND_KEYS) else 0.5 if name == "conv_out.weight" else 1.0
    return float(f"{gain * sqrt(12 / fan_in):.4g}"), 0.0


def manifest(model: torch.nn.Module, file: str, position_ids: int | None = None) -> Manifest:
    tensors = []
    if position_ids:
        tensors.append(Tensor("i64", "text_model.embeddings.position_ids", (1, position_ids), 1, 0))
    for name, tensor in sorted(model.state_dict().items()):
        tensors.append(Tensor("f32", name, tuple(tensor.shape), *spread(name, tuple(tensor.shape))))
    return Manifest(file, tuple(tensors))


# ---- files ----


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_component(folder: Path, model: torch.nn.Module, config: dict[str, object] | None = None, **more: int) -> None:
    """config.json (the library's own, unless given) and the manifest of a network."""
    folder.mkdir(parents=True, exist_ok=True)
    if config:
        write_json(folder / "config.json", config)
    elif isinstance(model, ConfigMixin):
        (folder / "config.json").write_text(model.to_json_string())
    else:
        model.config.architectures = [type(model).__name__]
        model.config.torch_dtype = torch.float32
        (folder / "config.json").write_text(model.config.to_json_string())
    file = DIFFUSERS_FILE if isinstance(model, ConfigMixin) else TRANSFORMERS_FILE
    (folder / MANIFEST).write_text(manifest(model, file, **more).text())


def write_schedulers(folder: Path, names: dict[str, dict[str, object]], version: str, **more: object) -> None:
    for name, settings in names.items():
        config = dict(clip_sample=True, num_train_timesteps=1000, **settings, **more)
        first = {"_class_name": "UnCLIPScheduler", "_diffusers_version": version}
        write_json(folder / name / "scheduler_config.json", first | dict(sorted(config.items())))


def write_index(folder: Path, class_name: str, classes: dict[str, tuple[str, str]], version: str) -> None:
    write_json(folder / "model_index.json", {"_class_name": class_name, "_diffusers_version": version} | classes)


def write_tokenizer(folder: Path, model_max_length: int) -> None:
    """The tokenizer's files; README.md says how they were trained."""
    train_tokenizer.write(folder)
    special = {
        name: dict(content=token, lstrip=False, normalized=normalized, rstrip=False, single_word=False)
        for name, token, normalized in (
            ("bos_token", train_tokenizer.BOS, True),
            ("eos_token", train_tokenizer.EOS, True),
            ("unk_token", train_tokenizer.EOS, True),
        )
    }
    write_json(folder / "special_tokens_map.json", special | {"pad_token": train_tokenizer.EOS})
    typed = {name: {"__type": "AddedToken", **token} for name, token in special.items()}
    settings = dict(
        add_prefix_space=False,
        do_lower_case=True,
        errors="replace",
        model_max_length=model_max_length,
        pad_token=train_tokenizer.EOS,
        tokenizer_class="CLIPTokenizer",
    )
    write_json(folder / "tokenizer_config.json", dict(sorted((settings | typed).items())))


def write_feature_extractor(folder: Path, size: int) -> None:
    config = {
        "crop_size": {"height": size, "width": size},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": size},
    }
    write_json(folder / "preprocessor_config.json", config)


def write_mini(folder: Path) -> None:
    version = "0.33.1"
    write_index(folder, "UnCLIPPipeline", CLASSES | EXTRA_CLASSES, version)
    write_tokenizer(folder / "tokenizer", MINI_CONTEXT)
    write_schedulers(folder, SCHEDULERS, version, beta_schedule="squaredcos_cap_v2")
    last = {"super_res_1024_scheduler": SCHEDULERS["super_res_scheduler"]}
    write_schedulers(folder, last, version, beta_schedule="squaredcos_cap_v2")
    write_feature_extractor(folder / "feature_extractor", MINI_VISION.image_size)
    write_component(folder / "text_encoder", CLIPTextModelWithProjection(MINI_TEXT))
    write_component(folder / "image_encoder", CLIPVisionModelWithProjection(MINI_VISION))
    write_component(folder / "prior", PriorTransformer(**MINI_PRIOR))
    write_component(folder / "ar_prior", priors.build(MINI_AR_PRIOR), MINI_AR_PRIOR)
    write_component(folder / "text_proj", UnCLIPTextProjModel(**MINI_TEXT_PROJ))
    write_component(folder / "decoder", UNet2DConditionModel(**MINI_DECODER))
    for name, sample_size, time_scale_shift in (
        ("super_res_first", 64, "default"),
        ("super_res_last", 64, "default"),
        ("super_res_1024_first", 256, "scale_shift"),
        ("super_res_1024_last", 256, "scale_shift"),
    ):
        write_component(folder / name, UNet2DModel(**mini_super_res(sample_size, time_scale_shift)))


def write_karlo(folder: Path) -> None:
    write_index(folder, "UnCLIPPipeline", CLASSES, KARLO_VERSION)
    write_tokenizer(folder / "tokenizer", KARLO_CONTEXT)
    write_schedulers(folder, SCHEDULERS, KARLO_VERSION)
    text = CLIPTextModelWithProjection(CLIPTextConfig(**KARLO_TEXT))
    write_component(folder / "text_encoder", text, KARLO_TEXT, position_ids=KARLO_CONTEXT)
    write_component(folder / "prior", PriorTransformer.from_config(KARLO_PRIOR), KARLO_PRIOR)
    write_component(folder / "text_proj", UnCLIPTextProjModel.from_config(KARLO_TEXT_PROJ), KARLO_TEXT_PROJ)
    write_component(folder / "decoder", UNet2DConditionModel.from_config(KARLO_DECODER), KARLO_DECODER)
    for name, sample_size in (("super_res_first", 256), ("super_res_last", None)):
        config = KARLO_SUPER_RES | {"sample_size": sample_size}
        write_component(folder / name, UNet2DModel.from_config(config), config)


def write_variations(folder: Path) -> None:
    write_feature_extractor(folder / "feature_extractor", KARLO_VISION["image_size"])
    vision = CLIPVisionModelWithProjection(CLIPVisionConfig(**KARLO_VISION))
    write_component(folder / "image_encoder", vision, KARLO_VISION)


def generate() -> None:
    shutil.rmtree(MODELS, ignore_errors=True)
    write_mini(MODELS / "mini")
    write_karlo(MODELS / "karlo-narrow")
    write_variations(MODELS / "karlo-narrow-variations")
