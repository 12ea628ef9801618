"""The building blocks of the networks, each alone with tiny widths and all of its tensors.

A file block-<name> holds in.*, out.* and the weights as w.<name in the checkpoint>. Pictures are
[n, c, h, w] as in torch. An up block's in.res.0, in.res.1, ... are its skip connections in the order in
which it takes them.
"""

from __future__ import annotations

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnAddedKVProcessor2_0
from diffusers.models.embeddings import TimestepEmbedding, get_timestep_embedding
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_blocks import (
    ResnetDownsampleBlock2D,
    ResnetUpsampleBlock2D,
    SimpleCrossAttnDownBlock2D,
    SimpleCrossAttnUpBlock2D,
    UNetMidBlock2D,
    UNetMidBlock2DSimpleCrossAttn,
)
from transformers import CLIPTextConfig, CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from inputs import Inputs, seeded
from store import save

GROUPS = 4
TIME = 16  # channels of the time embedding
CONTEXT = 12  # channels of the encoder's states
HEAD = 4
TOKENS = 6
SIZE = 6
MASKED = -10000.0


def common(**more: object) -> dict[str, object]:
    return dict(temb_channels=TIME, resnet_eps=1e-5, resnet_groups=GROUPS, resnet_act_fn="silu", **more)


def finish(
    case: str, given: Inputs, weights: dict[str, torch.Tensor], out: dict[str, torch.Tensor], **more: object
) -> None:
    settings = given.settings | more
    save(case, given.tensors | weights | {f"out.{name}": tensor for name, tensor in out.items()}, **settings)


def time_embeddings() -> None:
    given = Inputs("block-timestep")
    timesteps = given.put("timesteps", torch.tensor([0.0, 1.0, 17.0, 500.0, 999.0]))
    out = {}
    for channels in (8, 9, 128):
        for flip in (True, False):
            for shift in (0, 1):
                name = f"{channels}.{'flip' if flip else 'plain'}.{shift}"
                out[name] = get_timestep_embedding(timesteps, channels, flip, shift)
    finish("block-timestep", given, {}, out)

    given = Inputs("block-time-embedding")
    module = TimestepEmbedding(8, TIME, act_fn="silu")
    weights = seeded(given.case, module)
    finish(given.case, given, weights, {"y": module(given.add("x", 3, 8))})


def resnet(name: str, in_channels: int, out_channels: int, norm: str, **more: bool) -> None:
    given = Inputs(f"block-resnet-{name}")
    module = ResnetBlock2D(
        in_channels=in_channels,
        out_channels=out_channels,
        temb_channels=TIME,
        groups=GROUPS,
        eps=1e-5,
        non_linearity="silu",
        time_embedding_norm=norm,
        **more,
    )
    weights = seeded(given.case, module)
    x, time = given.add("x", 2, in_channels, SIZE, SIZE), given.add("temb", 2, TIME)
    finish(given.case, given, weights, {"y": module(x, time)}, groups=GROUPS, eps=1e-5, time_embedding_norm=norm)


def resnets() -> None:
    for norm in ("default", "scale_shift"):
        short = norm.replace("_", "-")
        resnet(short, 8, 8, norm)
        resnet(f"{short}-shortcut", 8, 12, norm)
        resnet(f"{short}-down", 8, 8, norm, down=True)
        resnet(f"{short}-up", 8, 8, norm, up=True)


def resnet_samplers() -> None:
    for norm in ("default", "scale_shift"):
        short = norm.replace("_", "-")
        settings = dict(groups=GROUPS, eps=1e-5, time_embedding_norm=norm)

        given = Inputs(f"block-resnet-downsample-{short}")
        down = ResnetDownsampleBlock2D(
            **common(in_channels=8, out_channels=12, num_layers=2, resnet_time_scale_shift=norm)
        )
        weights = seeded(given.case, down)
        y, skips = down(given.add("x", 2, 8, SIZE, SIZE), given.add("temb", 2, TIME))
        finish(given.case, given, weights, {"y": y} | {f"res.{i}": s for i, s in enumerate(skips)}, **settings)

        given = Inputs(f"block-resnet-upsample-{short}")
        up = ResnetUpsampleBlock2D(
            **common(in_channels=4, prev_output_channel=12, out_channels=8, num_layers=2, resnet_time_scale_shift=norm)
        )
        weights = seeded(given.case, up)
        x, first, second = (
            given.add(name, 2, channels, SIZE, SIZE) for name, channels in (("x", 12), ("res.0", 8), ("res.1", 4))
        )
        finish(given.case, given, weights, {"y": up(x, (second, first), given.add("temb", 2, TIME))}, **settings)


def cross_attention_blocks() -> None:
    settings = dict(groups=GROUPS, eps=1e-5, time_embedding_norm="scale_shift", attention_head_dim=HEAD)
    shared = common(
        resnet_time_scale_shift="scale_shift", attention_head_dim=HEAD, cross_attention_dim=CONTEXT, num_layers=2
    )
    for masked in (True, False):
        suffix = "" if masked else "-unmasked"

        given = Inputs(f"block-simple-cross-attn-down{suffix}")
        down = SimpleCrossAttnDownBlock2D(in_channels=8, out_channels=12, **shared)
        weights = seeded(given.case, down)
        y, skips = down(given.add("x", 2, 8, SIZE, SIZE), given.add("temb", 2, TIME), **conditions(given, masked))
        finish(given.case, given, weights, {"y": y} | {f"res.{i}": s for i, s in enumerate(skips)}, **settings)

        given = Inputs(f"block-simple-cross-attn-up{suffix}")
        up = SimpleCrossAttnUpBlock2D(in_channels=4, prev_output_channel=12, out_channels=8, **shared)
        weights = seeded(given.case, up)
        x, first, second = (
            given.add(name, 2, channels, SIZE, SIZE) for name, channels in (("x", 12), ("res.0", 8), ("res.1", 4))
        )
        y = up(x, (second, first), given.add("temb", 2, TIME), **conditions(given, masked))
        finish(given.case, given, weights, {"y": y}, **settings)

        given = Inputs(f"block-mid-simple-cross-attn{suffix}")
        middle = UNetMidBlock2DSimpleCrossAttn(in_channels=8, **(shared | {"num_layers": 1}))
        weights = seeded(given.case, middle)
        y = middle(given.add("x", 2, 8, SIZE, SIZE), given.add("temb", 2, TIME), **conditions(given, masked))
        finish(given.case, given, weights, {"y": y}, **settings)

    given = Inputs("block-mid")
    plain = UNetMidBlock2D(in_channels=8, **common(add_attention=False, resnet_time_scale_shift="default"))
    weights = seeded(given.case, plain)
    y = plain(given.add("x", 2, 8, SIZE, SIZE), given.add("temb", 2, TIME))
    finish(given.case, given, weights, {"y": y}, groups=GROUPS, eps=1e-5, time_embedding_norm="default")


def conditions(given: Inputs, masked: bool) -> dict[str, torch.Tensor]:
    """in.context, and in.mask (1 = token) where there is one; masked entries get -10000 added."""
    arguments = {"encoder_hidden_states": given.add("context", 2, TOKENS, CONTEXT)}
    if masked:
        mask = given.mask("mask", TOKENS, 4, TOKENS)
        arguments["attention_mask"] = ((1 - mask.float()) * MASKED)[:, None]
    return arguments


def added_kv_attention() -> None:
    for masked in (True, False):
        given = Inputs("block-attn-added-kv" + ("" if masked else "-unmasked"))
        module = Attention(
            query_dim=8,
            cross_attention_dim=8,
            heads=2,
            dim_head=HEAD,
            added_kv_proj_dim=CONTEXT,
            norm_num_groups=GROUPS,
            bias=True,
            upcast_softmax=True,
            processor=AttnAddedKVProcessor2_0(),
        )
        weights = seeded(given.case, module)
        y = module(given.add("x", 2, 8, 3, 3), **conditions(given, masked))
        finish(given.case, given, weights, {"y": y}, groups=GROUPS, eps=1e-5, attention_head_dim=HEAD)


def transformer_blocks() -> None:
    """The prior's block; in.mask [2, l, l] is added to the logits of every head."""
    given = Inputs("block-prior-transformer")
    heads = 2
    module = BasicTransformerBlock(8, heads, HEAD, activation_fn="gelu", attention_bias=True)
    weights = seeded(given.case, module)
    causal = torch.full((TOKENS, TOKENS), MASKED).triu_(1)
    padding = (torch.arange(TOKENS)[None] >= torch.tensor([4, TOKENS])[:, None]) * MASKED
    mask = given.put("mask", causal[None] + padding[:, None])
    y = module(given.add("x", 2, TOKENS, 8), attention_mask=mask.repeat_interleave(heads, dim=0))
    finish(given.case, given, weights, {"y": y}, num_attention_heads=heads, attention_head_dim=HEAD)


def clip_layers() -> None:
    """CLIP's encoder layer: causal with quick_gelu as in the text encoder, unmasked with gelu."""
    sizes = dict(hidden_size=8, intermediate_size=20, num_attention_heads=2)
    causal = torch.full((TOKENS, TOKENS), torch.finfo(torch.float32).min).triu_(1)[None, None]
    for name, config, mask in (
        ("text", CLIPTextConfig(**sizes, hidden_act="quick_gelu"), causal.expand(2, 1, TOKENS, TOKENS)),
        ("vision", CLIPVisionConfig(**sizes, hidden_act="gelu"), None),
    ):
        given = Inputs(f"block-clip-{name}-layer")
        config._attn_implementation = "sdpa"
        module = CLIPEncoderLayer(config)
        weights = seeded(given.case, module)
        y = module(given.add("x", 2, TOKENS, 8), attention_mask=mask, causal_attention_mask=None)[0]
        finish(
            given.case,
            given,
            weights,
            {"y": y},
            hidden_act=config.hidden_act,
            num_attention_heads=2,
            layer_norm_eps=config.layer_norm_eps,
            causal=mask is not None,
        )


def generate() -> None:
    time_embeddings()
    resnets()
    resnet_samplers()
    cross_attention_blocks()
    added_kv_attention()
    transformer_blocks()
    clip_layers()
