# SPDX-License-Identifier: Apache-2.0
"""Kakao Brain's own checkpoints of Karlo to diffusers' layout: names, split attention, and the settings, which follow
from the shapes except for the size of a head.

Sources: kakaobrain/karlo, karlo/modules/{xf,unet}.py and karlo/models/*.py for the names; diffusers'
convert_kakao_brain_unclip_to_diffusers.py for what they correspond to. A checkpoint is {"state_dict": {name: tensor}}:

    prior-ckpt-step=*.ckpt        model.*                                   -> prior (with the two of ViT-L-14_stats.th)
    decoder-ckpt-step=*.ckpt      model.*                                   -> decoder, text_proj
    improved-sr-ckpt-step=*.ckpt  model_first_steps.*, model_last_step.*    -> super_res_first, super_res_last

Every tensor must be used. The text encoder and the tokenizer are OpenAI's and come from another model directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..layout import KARLO
from . import Refused
from .pickles import load, load_list

PATTERNS = {
    "prior": "prior-ckpt-step=*.ckpt", "decoder": "decoder-ckpt-step=*.ckpt", "upsampler": "improved-sr-ckpt-step=*.ckpt",
    "statistics": "ViT-L-14_stats.th",
}
HEAD = 64  # channels of a head, prior and decoder
BORROWED = ("text_encoder", "tokenizer")
VERSION = {"_diffusers_version": "0.11.0.dev0"}
INDEX = {"_class_name": "UnCLIPPipeline", **VERSION, **KARLO}
PRIOR_NAMES = {
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2", "clip_img_proj": "proj_in",
    "text_emb_proj": "embedding_proj", "text_enc_proj": "encoder_hidden_states_proj", "final_ln": "norm_out",
    "out_proj": "proj_to_clip_embeddings",
}
PRIOR_BLOCK_NAMES = {
    "attn.c_proj": "attn1.to_out.0", "mlp.c_fc": "ff.net.0.proj", "mlp.c_proj": "ff.net.2", "ln_1": "norm1", "ln_2": "norm3",
}
TEXT_PROJ_NAMES = {
    "text_seq_proj.0": "encoder_hidden_states_proj", "text_seq_proj.1": "text_encoder_hidden_states_norm",
    "clip_tok_proj": "clip_extra_context_tokens_proj", "text_feat_proj": "embedding_proj",
    "clip_emb": "clip_image_embeddings_project_to_time_embeddings",
}
UNET_NAMES = {
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2", "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out", "out.2": "conv_out",
}
RESNET_NAMES = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
    "out_layers.3": "conv2",
}
ATTENTION_NAMES = {
    "qkv": ("to_q", "to_k", "to_v"), "encoder_kv": ("add_k_proj", "add_v_proj"), "proj_out": ("to_out.0",),
}
KINDS = (".weight", ".bias")


@dataclass
class Network:
    """Tensors and settings of one folder of the result."""

    tensors: dict[str, Tensor]
    config: dict


class Original:
    """A checkpoint under its prefix; what has been taken is gone."""

    def __init__(self, tensors: dict[str, Tensor], prefix: str) -> None:
        self.left = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        self.prefix = prefix

    def take(self, name: str) -> Tensor:
        if name not in self.left:
            raise Refused(f"the checkpoint has no tensor '{self.prefix}{name}'")
        return self.left.pop(name)

    def has(self, name: str) -> bool:
        return name in self.left

    def shape(self, name: str, rank: int) -> torch.Size:
        if name not in self.left:
            raise Refused(f"the checkpoint has no tensor '{self.prefix}{name}'")
        shape = self.left[name].shape
        if len(shape) != rank:
            raise Refused(f"tensor '{self.prefix}{name}' has shape {list(shape)}, not {rank} dimensions")
        return shape

    def count(self, pattern: str) -> int:
        """How many of pattern.format(0), pattern.format(1), … there are."""
        number = 0
        while self.has(pattern.format(number)):
            number += 1
        return number

    def move(self, out: dict[str, Tensor], names: dict[str, str], source: str = "", target: str = "") -> None:
        for old, new in names.items():
            for kind in KINDS:
                out[target + new + kind] = self.take(source + old + kind)

    def finish(self) -> None:
        for name in self.left:
            raise Refused(f"the checkpoint's tensor '{self.prefix}{name}' is of no known use")


def split(value: Tensor, parts: int, head: int, name: str) -> list[Tensor]:
    """[heads * parts * head, ...] with the parts of each head side by side, to `parts` of [heads * head, ...]."""
    if value.dim() == 0 or value.shape[0] % (parts * head):
        raise Refused(f"tensor '{name}' of shape {list(value.shape)} does not split into {parts} for heads of {head} channels")
    by_head = value.reshape(-1, parts, head, *value.shape[1:])
    return [by_head[:, part].reshape(-1, *value.shape[1:]) for part in range(parts)]


def flat(value: Tensor, name: str) -> Tensor:
    """A 1x1 convolution's kernel [oc, ic, 1] as a matrix."""
    if value.dim() != 3 or value.shape[2] != 1:
        raise Refused(f"tensor '{name}' has shape {list(value.shape)}, not that of a convolution of width 1")
    return value[:, :, 0]


def prior(tensors: dict[str, Tensor], statistics: list[Tensor], head: int) -> Network:
    old = Original(tensors, "model.")
    layers = old.count("transformer.resblocks.{}.ln_1.weight")
    width, embedding = old.shape("clip_img_proj.weight", 2)
    if width % head:
        raise Refused(f"the prior's width {width} does not split into heads of {head} channels")
    config = {
        "_class_name": "PriorTransformer", **VERSION, "additional_embeddings": 4, "attention_head_dim": head, "dropout": 0.0,
        "embedding_dim": embedding, "num_attention_heads": width // head,
        "num_embeddings": old.shape("positional_embedding", 3)[1] - 4, "num_layers": layers,
    }
    out: dict[str, Tensor] = {}
    old.move(out, PRIOR_NAMES)
    out["positional_embedding"], out["prd_embedding"] = old.take("positional_embedding"), old.take("prd_emb")
    for layer in range(layers):
        prior_block(old, out, f"transformer.resblocks.{layer}.", f"transformer_blocks.{layer}.", head)
    for name, value in zip(("clip_mean", "clip_std"), statistics):
        if value.shape != (embedding,):
            raise Refused(f"the statistics have shape {list(value.shape)}, not [{embedding}]")
        out[name] = value[None]
    old.finish()
    return Network(out, config)


def prior_block(old: Original, out: dict[str, Tensor], source: str, target: str, head: int) -> None:
    old.move(out, PRIOR_BLOCK_NAMES, source, target)
    for kind in KINDS:
        name = f"{source}attn.c_qkv{kind}"
        for letter, part in zip("qkv", split(old.take(name), 3, head, old.prefix + name)):
            out[f"{target}attn1.to_{letter}{kind}"] = part


def text_proj(old: Original) -> Network:
    context, embedding = old.shape("text_seq_proj.0.weight", 2)
    config = {
        "_class_name": "UnCLIPTextProjModel", **VERSION, "clip_embeddings_dim": embedding,
        "clip_extra_context_tokens": old.shape("clip_tok_proj.weight", 2)[0] // context, "cross_attention_dim": context,
        "time_embed_dim": old.shape("clip_emb.weight", 2)[0],
    }
    out: dict[str, Tensor] = {}
    old.move(out, TEXT_PROJ_NAMES)
    out["learned_classifier_free_guidance_embeddings"] = old.take("cf_param")
    return Network(out, config)


@dataclass(frozen=True)
class Levels:
    """A UNet's structure. A level is `blocks` blocks and, except for the last, a block that halves the size."""

    channels: tuple[int, ...]
    attention: tuple[bool, ...]
    blocks: int
    context: int | None  # width of the text's tokens

    def first(self, level: int) -> int:
        return 1 + level * (self.blocks + 1)


def levels_of(old: Original) -> Levels:
    outputs = old.count("output_blocks.{}.0.in_layers.0.weight")
    inputs = old.count("input_blocks.{}.0.in_layers.0.weight") or 1
    while old.has(f"input_blocks.{inputs}.0.in_layers.0.weight"):
        inputs += 1
    enlarging = sum(old.has(f"output_blocks.{at}.{layer}.in_layers.0.weight") for at in range(outputs) for layer in (1, 2))
    count = enlarging + 1
    if outputs == 0 or inputs != outputs or outputs % count or outputs // count < 2:
        raise Refused(f"the checkpoint's '{old.prefix}' has {inputs} input and {outputs} output blocks for {count} levels")
    blocks = outputs // count - 1
    firsts = [f"input_blocks.{1 + level * (blocks + 1)}" for level in range(count)]
    attention = tuple(old.has(f"{first}.1.qkv.weight") for first in firsts)
    context = old.shape("middle_block.1.encoder_kv.weight", 3)[1] if old.has("middle_block.1.qkv.weight") else None
    return Levels(tuple(old.shape(f"{first}.0.out_layers.3.weight", 4)[0] for first in firsts), attention, blocks, context)


def resnet(old: Original, out: dict[str, Tensor], source: str, target: str) -> None:
    old.move(out, RESNET_NAMES, source + ".", target + ".")
    if old.has(f"{source}.skip_connection.weight"):
        old.move(out, {"skip_connection": "conv_shortcut"}, source + ".", target + ".")


def attention(old: Original, out: dict[str, Tensor], source: str, target: str, head: int) -> None:
    old.move(out, {"norm": "group_norm"}, source + ".", target + ".")
    for name, new in ATTENTION_NAMES.items():
        for kind in KINDS:
            value, full = old.take(f"{source}.{name}{kind}"), f"{old.prefix}{source}.{name}{kind}"
            matrix = flat(value, full) if kind == ".weight" else value
            parts = split(matrix, len(new), head, full) if len(new) > 1 else [matrix]
            out.update({f"{target}.{part_name}{kind}": part for part_name, part in zip(new, parts)})


def down(old: Original, out: dict[str, Tensor], levels: Levels, head: int) -> None:
    for level, attends in enumerate(levels.attention):
        for block in range(levels.blocks):
            source = f"input_blocks.{levels.first(level) + block}"
            resnet(old, out, f"{source}.0", f"down_blocks.{level}.resnets.{block}")
            if attends:
                attention(old, out, f"{source}.1", f"down_blocks.{level}.attentions.{block}", head)
        if level + 1 < len(levels.channels):
            resnet(old, out, f"input_blocks.{levels.first(level) + levels.blocks}.0", f"down_blocks.{level}.downsamplers.0")


def middle(old: Original, out: dict[str, Tensor], levels: Levels, head: int) -> None:
    resnet(old, out, "middle_block.0", "mid_block.resnets.0")
    if levels.context is not None:
        attention(old, out, "middle_block.1", "mid_block.attentions.0", head)
    resnet(old, out, f"middle_block.{2 if levels.context is not None else 1}", "mid_block.resnets.1")


def up(old: Original, out: dict[str, Tensor], levels: Levels, head: int) -> None:
    """The block that doubles the size is the last part of a level's last block."""
    for level, attends in enumerate(reversed(levels.attention)):
        for block in range(levels.blocks + 1):
            source = f"output_blocks.{level * (levels.blocks + 1) + block}"
            resnet(old, out, f"{source}.0", f"up_blocks.{level}.resnets.{block}")
            if attends:
                attention(old, out, f"{source}.1", f"up_blocks.{level}.attentions.{block}", head)
        if level + 1 < len(levels.channels):
            resnet(old, out, f"{source}.{2 if attends else 1}", f"up_blocks.{level}.upsamplers.0")


def unet(old: Original, kind: str, sample_size: int | None, head: int) -> Network:
    levels = levels_of(old)
    config = unet_config(old, levels, kind, sample_size, head)
    out: dict[str, Tensor] = {}
    old.move(out, UNET_NAMES)
    down(old, out, levels, head)
    middle(old, out, levels, head)
    up(old, out, levels, head)
    old.finish()
    return Network(out, config)


def unet_config(old: Original, levels: Levels, kind: str, sample_size: int | None, head: int) -> dict:
    scales = old.shape("middle_block.0.emb_layers.1.weight", 2)[0] == 2 * levels.channels[-1]
    plain, text = ("Resnet{}sampleBlock2D", "SimpleCrossAttn{}Block2D")
    config = {
        "_class_name": kind, **VERSION, "act_fn": "silu", "block_out_channels": list(levels.channels),
        "center_input_sample": False, "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0,
        "down_block_types": [text.format("Down") if has else plain.format("Down") for has in levels.attention],
        "up_block_types": [text.format("Up") if has else plain.format("Up") for has in reversed(levels.attention)],
        "in_channels": old.shape("input_blocks.0.0.weight", 4)[1], "out_channels": old.shape("out.2.weight", 4)[0],
        "layers_per_block": levels.blocks, "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32,
        "resnet_time_scale_shift": "scale_shift" if scales else "default", "sample_size": sample_size,
    }
    if levels.context is None:
        return config | {"add_attention": False, "attention_head_dim": 8, "time_embedding_type": "positional"}
    return config | {
        "attention_head_dim": head, "class_embed_type": "identity", "cross_attention_dim": levels.context,
        "dual_cross_attention": False, "mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "num_class_embeds": None,
        "only_cross_attention": False, "upcast_attention": False, "use_linear_projection": False,
    }


def scheduler(prediction: str, variance: str, clip: float) -> dict:
    return {
        "_class_name": "UnCLIPScheduler", **VERSION, "clip_sample": True, "clip_sample_range": clip,
        "num_train_timesteps": 1000, "prediction_type": prediction, "variance_type": variance,
    }


SCHEDULERS = {
    "prior_scheduler": scheduler("sample", "fixed_small_log", 5.0),
    "decoder_scheduler": scheduler("epsilon", "learned_range", 1.0),
    "super_res_scheduler": scheduler("epsilon", "fixed_small_log", 1.0),
}


def checkpoints(folder: Path) -> dict[str, Path]:
    """The four files in a folder; empty where there is none of them."""
    found = {name: sorted(folder.glob(pattern)) for name, pattern in PATTERNS.items()}
    if not any(found.values()):
        return {}
    for name, files in found.items():
        if len(files) != 1:
            raise Refused(f"'{folder}' has {len(files)} files {PATTERNS[name]}, not one")
    return {name: files[0] for name, files in found.items()}


def within(tensors: dict[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    for name in tensors:
        if not name.startswith(prefixes):
            raise Refused(f"the checkpoint's tensor '{name}' is of no known use")
    return tensors


def networks(files: dict[str, Path], prior_head: int = HEAD, decoder_head: int = HEAD) -> Iterator[tuple[str, Network]]:
    """Yields (folder, network), one at a time, as each is as large as memory may be."""
    yield "prior", prior(within(load(files["prior"]), "model."), load_list(files["statistics"], 2), prior_head)
    old = Original(within(load(files["decoder"]), "model."), "model.")
    yield "text_proj", text_proj(old)
    yield "decoder", unet(old, "UNet2DConditionModel", 64, decoder_head)
    tensors = within(load(files["upsampler"]), "model_first_steps.", "model_last_step.")
    yield "super_res_first", unet(Original(tensors, "model_first_steps."), "UNet2DModel", 256, HEAD)
    yield "super_res_last", unet(Original(tensors, "model_last_step."), "UNet2DModel", None, HEAD)
