"""Each network of the test models, whole, with its weights from the model's manifest.

A file net-<model>-<network> holds in.* and out.*; mini's also hold what its parts hand on, as
mid.<module>, which tells where a fault begins.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import PriorTransformer, UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.unclip import UnCLIPTextProjModel
from transformers import CLIPTextModelWithProjection, CLIPTokenizerFast, CLIPVisionModelWithProjection

from inputs import Inputs, model_folder
from store import big, save

PROMPTS = (
    "a red heart",
    "a high resolution photo of a panda eating bamboo in the forest, 红色背景上的熊猫, красное сердце на синем фоне "
    "with two dogs running on the beach at sunset and a sign that says hello world 1234567890, ein roter Apfel",
)
PARTS = ("conv_in", "time_embedding", "down_blocks", "mid_block", "up_blocks", "transformer_blocks", "layers")


class Parts:
    """Records what the named parts of a network return, as mid.<module>."""

    def __init__(self, network: torch.nn.Module, wanted: bool) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        for name, module in network.named_modules() if wanted else ():
            *parents, leaf = name.split(".")
            of_list = leaf.isdigit() and parents[-1] in PARTS
            if of_list or (leaf in PARTS and not isinstance(module, torch.nn.ModuleList)):
                module.register_forward_hook(self.recorder(name))

    def recorder(self, name: str):
        def record(_module: torch.nn.Module, _inputs: object, output: object) -> None:
            self.tensors[f"mid.{name}"] = output[0] if isinstance(output, tuple) else output

        return record


def finish(given: Inputs, parts: Parts, out: dict[str, torch.Tensor], **more: object) -> None:
    stored: dict[str, object] = dict(given.tensors | parts.tensors)
    for name, tensor in out.items():
        stored |= big(f"out.{name}", tensor)
    save(given.case, stored, **(given.settings | more))


def text_encoder(model: str, folder: Path) -> None:
    given = Inputs(f"net-{model}-text_encoder")
    network = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder")
    tokenizer = CLIPTokenizerFast.from_pretrained(folder / "tokenizer")
    length = tokenizer.model_max_length
    encoded = tokenizer(list(PROMPTS), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    ids = given.put("ids", encoded.input_ids)
    given.put("mask", encoded.attention_mask.bool())
    parts = Parts(network, model == "mini")
    y = network(ids)
    out = {"text_embeds": y.text_embeds, "last_hidden_state": y.last_hidden_state}
    finish(given, parts, out, prompt_0=PROMPTS[0], prompt_1=PROMPTS[1])


def image_encoder(model: str, folder: Path, batch: int) -> None:
    given = Inputs(f"net-{model}-image_encoder")
    network = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder")
    size = network.config.image_size
    parts = Parts(network, model == "mini")
    y = network(given.add("pixel_values", batch, 3, size, size))
    finish(given, parts, {"image_embeds": y.image_embeds})


def prior(model: str, folder: Path) -> None:
    network = PriorTransformer.from_pretrained(folder / "prior", low_cpu_mem_usage=False)
    length, dim = network.config.num_embeddings, network.config.embedding_dim
    for suffix, timestep in (("", 3), ("-unmasked", 981)):
        given = Inputs(f"net-{model}-prior{suffix}")
        parts = Parts(network, model == "mini")
        y = network(
            given.add("hidden_states", 2, dim),
            timestep,
            given.add("proj_embedding", 2, dim),
            given.add("encoder_hidden_states", 2, length, dim),
            given.mask("mask", length, 5, length - 2) if not suffix else None,
        ).predicted_image_embedding
        out = {"predicted_image_embedding": y, "post_process_latents": network.post_process_latents(y)}
        finish(given, parts, out, timestep=timestep)


def text_proj(model: str, folder: Path) -> None:
    """Once with classifier-free guidance (rows: unconditional, then prompts), once without."""
    network = UnCLIPTextProjModel.from_pretrained(folder / "text_proj", low_cpu_mem_usage=False)
    dim = network.config.clip_embeddings_dim
    for suffix, rows in (("", 4), ("-unguided", 2)):
        given = Inputs(f"net-{model}-text_proj{suffix}")
        states, time_embeddings = network(
            image_embeddings=given.add("image_embeddings", 2, dim),
            prompt_embeds=given.add("prompt_embeds", rows, dim),
            text_encoder_hidden_states=given.add("text_encoder_hidden_states", rows, 10, dim),
            do_classifier_free_guidance=rows == 4,
        )
        out = {"encoder_hidden_states": states, "class_labels": time_embeddings}
        finish(given, Parts(network, False), out, do_classifier_free_guidance=rows == 4)


def decoder(model: str, folder: Path, length: int) -> None:
    network = UNet2DConditionModel.from_pretrained(folder / "decoder", low_cpu_mem_usage=False)
    config = network.config
    for suffix, timestep in (("", 3), ("-unmasked", 981)):
        given = Inputs(f"net-{model}-decoder{suffix}")
        parts = Parts(network, model == "mini")
        y = network(
            given.add("sample", 2, 3, 16, 16),
            timestep,
            given.add("encoder_hidden_states", 2, length, config.cross_attention_dim),
            class_labels=given.add("class_labels", 2, 4 * config.block_out_channels[0]),
            attention_mask=given.mask("mask", length, 9, length - 2) if not suffix else None,
        ).sample
        finish(given, parts, {"sample": y}, timestep=timestep)


def super_res(model: str, folder: Path, name: str, timestep: int, size: int) -> None:
    given = Inputs(f"net-{model}-{name}")
    network = UNet2DModel.from_pretrained(folder / name, low_cpu_mem_usage=False)
    parts = Parts(network, model == "mini" and name == "super_res_first")
    y = network(given.add("sample", 2, 6, size, size), timestep).sample
    finish(given, parts, {"sample": y}, timestep=timestep)


def generate() -> None:
    for model in ("mini", "karlo-narrow"):
        folder = model_folder(model)
        text_encoder(model, folder)
        prior(model, folder)
        text_proj(model, folder)
        decoder(model, folder, 4 + (24 if model == "mini" else 77))
        super_res(model, folder, "super_res_first", 999, 16)
        super_res(model, folder, "super_res_last", 0, 24)
    super_res("mini", model_folder("mini"), "super_res_1024_first", 500, 32)
    super_res("mini", model_folder("mini"), "super_res_1024_last", 0, 32)
    image_encoder("mini", model_folder("mini"), 2)
    image_encoder("karlo-narrow", model_folder("karlo-narrow-variations"), 1)
