# SPDX-License-Identifier: Apache-2.0
"""The networks, as diffusers' and transformers' own classes, from a preset."""

from __future__ import annotations

from diffusers import PriorTransformer, UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.unclip import UnCLIPTextProjModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

from .presets import Clip, Decoder, Prior, Upsampler

HEAD = 64


def text_encoder(clip: Clip, length: int, vocabulary: int, begin: int, end: int) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=vocabulary, hidden_size=clip.width, intermediate_size=4 * clip.width, projection_dim=clip.embedding,
            num_hidden_layers=clip.layers, num_attention_heads=clip.heads, max_position_embeddings=length,
            hidden_act="quick_gelu", bos_token_id=begin, eos_token_id=end, pad_token_id=end,
        )
    )


def image_encoder(clip: Clip) -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=clip.image_width, intermediate_size=4 * clip.image_width, projection_dim=clip.embedding,
            num_hidden_layers=clip.image_layers, num_attention_heads=clip.image_heads, image_size=64, patch_size=clip.patch,
            hidden_act="quick_gelu",
        )
    )


def prior(config: Prior, clip: Clip, length: int) -> PriorTransformer:
    if config.heads * HEAD != clip.width or clip.embedding != clip.width:
        raise ValueError("the prior's width, the text encoder's and the embedding's must be one")
    return PriorTransformer(
        num_attention_heads=config.heads, attention_head_dim=HEAD, num_layers=config.layers,
        embedding_dim=clip.embedding, num_embeddings=length, additional_embeddings=4,
    )


def text_proj(config: Decoder, embedding: int) -> UnCLIPTextProjModel:
    return UnCLIPTextProjModel(
        clip_extra_context_tokens=4, clip_embeddings_dim=embedding, time_embed_dim=4 * config.channels[0],
        cross_attention_dim=config.context,
    )


def decoder(config: Decoder, embedding: int) -> UNet2DConditionModel:
    """Attention at the lower two levels and between them, as in Karlo but for its second."""
    plain = len(config.channels) - 2
    down = ["ResnetDownsampleBlock2D"] * plain + ["SimpleCrossAttnDownBlock2D"] * 2
    up = ["SimpleCrossAttnUpBlock2D"] * 2 + ["ResnetUpsampleBlock2D"] * plain
    return UNet2DConditionModel(
        sample_size=64, in_channels=3, out_channels=6, block_out_channels=config.channels, layers_per_block=config.blocks,
        down_block_types=tuple(down), mid_block_type="UNetMidBlock2DSimpleCrossAttn", up_block_types=tuple(up),
        cross_attention_dim=config.context, attention_head_dim=config.head, class_embed_type="identity",
        resnet_time_scale_shift="scale_shift", norm_num_groups=config.groups,
    )


def upsampler(config: Upsampler, size: int) -> UNet2DModel:
    levels = len(config.channels)
    return UNet2DModel(
        sample_size=size, in_channels=6, out_channels=3, block_out_channels=config.channels, layers_per_block=config.blocks,
        down_block_types=("ResnetDownsampleBlock2D",) * levels, up_block_types=("ResnetUpsampleBlock2D",) * levels,
        add_attention=False, resnet_time_scale_shift="scale_shift", norm_num_groups=config.groups,
    )
