# SPDX-License-Identifier: Apache-2.0
"""Where a run keeps things, and what stages get from it: data on the device, the tokenizer, and trained networks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import TypeVar

import numpy as np
import torch
from diffusers import PriorTransformer
from diffusers.models import upsampling
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from . import adopt, models, tokenizer
from .data import icons
from .data.compositor import Scenes, on_device
from .data.fetch import cache_folder, fetch
from .data.mixed import Mixed, mix, row_count, scene_count
from .data.pictures import Pictures, open_pictures
from .data.scenes import GROUP
from .data.sprites import open_atlas, sprite_names
from .data.table import World, open_table
from .loop import write_atomically
from .presets import Preset
from .tokenizer import Tokenizer

Data = Scenes | Pictures | Mixed
READERS = ("prior", "decoder")  # of CLIP's embeddings
Network = TypeVar("Network", bound=nn.Module)


def padding_mask(tokens: Tensor, end: int) -> Tensor:
    """True up to and including the first end token, as the tokenizer's attention mask."""
    ends = (tokens == end).long()
    return (ends.cumsum(-1) - ends) == 0


@dataclass
class Text:
    """A CLIP text encoder's output for a batch of captions."""

    embedding: Tensor  # [n, D]
    states: Tensor  # [n, L, D]
    mask: Tensor  # bool [n, L]


class Context:
    def __init__(
        self, preset: Preset, folder: Path, device: torch.device, processes: int = 1, pictures: tuple[Path, ...] = (),
        compile_networks: bool = False, log: Callable[[str], None] = print, model: Path | None = None,
        rehearse: float | None = None,
    ) -> None:
        """`model`: a directory to start from instead of random weights. `rehearse`: it is fine-tuned on `pictures`, and
        this share of what it sees are emoji scenes.
        """
        self.preset, self.folder, self.device, self.processes = preset, folder, device, processes
        self.pictures, self.compile_networks, self.log, self.model = pictures, compile_networks, log, model
        self.rehearse = rehearse

    def checkpoint(self, stage: str) -> Path:
        return self.folder / f"{stage}.pt"

    @property
    def cache(self) -> Path:
        return cache_folder()

    @cached_property
    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)

    # Data

    @cached_property
    def packages(self) -> Path:
        return fetch()

    @cached_property
    def concepts(self) -> tuple[icons.Concept, ...]:
        return icons.concepts(self.packages, self.preset.data.concepts)

    def world(self, concepts: tuple[icons.Concept, ...]) -> World:
        names = sprite_names(concepts, self.preset.data.styles)
        return World(concepts, self.preset.data.styles, self.preset.data.mix, {name: at for at, name in enumerate(names)})

    def open_scenes(self, concepts: tuple[icons.Concept, ...], atlas_size: int, seed: int, count: int, held_out: bool) -> Scenes:
        world = self.world(concepts)
        atlas = open_atlas(self.cache, world.sprites, atlas_size, self.packages, self.processes)
        table = open_table(self.cache, world, self.tokenizer, seed, count, held_out, self.processes)
        return on_device(table, [atlas], GROUP, self.device)

    @cached_property
    def data(self) -> Data:
        """What all networks but upsampler-2 learn from."""
        if self.pictures:
            return self.own_data((64, 256) if self.rehearse is None else (64, 2 * 64, 256), self.training_scenes)
        return self.training_scenes(self.preset.data.scenes)

    @cached_property
    def large_data(self) -> Data:
        """Pictures sharp at 1024, of fewer sprites."""
        if self.pictures:
            return self.own_data((256, 1024), self.large_scenes)
        return self.large_scenes(min(20_000, self.preset.data.scenes))

    def training_scenes(self, count: int) -> Scenes:
        data = self.preset.data
        return self.open_scenes(self.concepts, data.atlas, data.seed, count, held_out=False)

    def large_scenes(self, count: int) -> Scenes:
        data = self.preset.data
        some = self.concepts[:: max(1, len(self.concepts) // data.large_concepts)]
        return self.open_scenes(some, data.large_atlas, data.seed + 1, count, held_out=False)

    def own_data(self, sizes: tuple[int, ...], scenes: Callable[[int], Scenes]) -> Pictures | Mixed:
        """A person's pictures; when fine-tuning among scenes, which are drawn up only if they are rehearsed."""
        pictures = open_pictures(list(self.pictures), self.cache, self.tokenizer, sizes, self.device, self.log)
        if self.rehearse is None:
            return pictures
        count = scene_count(row_count(len(pictures), self.rehearse), self.rehearse)
        return mix(pictures, scenes(count) if count else None, self.rehearse)

    @property
    def data_key(self) -> list:
        """Names a person's pictures, and how they are mixed."""
        pictures = self.data.pictures if isinstance(self.data, Mixed) else self.data
        return [pictures.key, self.rehearse] if isinstance(pictures, Pictures) else []

    def held_out(self, count: int, seed: int) -> Scenes:
        return self.open_scenes(self.concepts, self.preset.data.atlas, seed, count, held_out=True)

    # The tokenizer

    @cached_property
    def tokenizer(self) -> Tokenizer:
        state = torch.load(self.checkpoint("tokenizer"), weights_only=True)
        return Tokenizer(tuple(tuple(pair) for pair in state["merges"]), state["length"], tuple(state.get("tokens", ())))

    def write_tokenizer(self) -> None:
        """Trains the tokenizer, or takes the model's that training starts from."""
        if self.model:
            state = adopt.tokens_of(self.model)
        else:
            made = self.train_tokenizer()
            state = {"merges": [list(pair) for pair in made.merges], "length": made.length}
        write_atomically(self.checkpoint("tokenizer"), state)
        self.log(f"tokenizer: {len(self.tokenizer.vocabulary)} tokens")

    def train_tokenizer(self) -> Tokenizer:
        tokens = self.preset.tokens
        world = self.world(self.concepts)
        source, speaker, rng = world.source(self.preset.data.seed), world.captions(), Random("tokenizer")
        groups = -(-tokens.captions // (2 * GROUP))
        named = [name for concept in self.concepts for name in (concept.english, concept.chinese)]
        said = (
            speaker.say(scene, language, rng)
            for group in range(groups) for scene in source.group(group) for language in ("en", "zh")
        )
        return tokenizer.train([*named, *said], tokens.merges, tokens.length)

    # Networks

    def new_text_encoder(self) -> CLIPTextModelWithProjection:
        tokens = self.tokenizer
        return models.text_encoder(self.preset.clip, tokens.length, len(tokens.vocabulary), tokens.begin, tokens.end)

    def trained(self, stage: str) -> dict[str, Tensor]:
        path = self.checkpoint(stage)
        if path.exists():
            return torch.load(path, map_location=self.device, weights_only=True)["average"]
        if self.model and stage in adopt.SOURCES:
            return adopt.state_of(self.model, stage)
        raise FileNotFoundError(f"{stage} is not trained yet: run --stage {stage} first")

    def has(self, stage: str) -> bool:
        """Whether `trained` has something to give."""
        return self.checkpoint(stage).exists() or (self.model is not None and stage in adopt.SOURCES)

    def stale(self, clip_learns: bool = False) -> list[str]:
        """The stages that still read the embeddings of the model's CLIP, if that has learnt on or is about to."""
        if self.model is None or not (clip_learns or self.checkpoint("clip").exists()):
            return []
        return [name for name in READERS if not self.checkpoint(name).exists()]

    def frozen(self, network: Network, stage: str, prefix: str = "") -> Network:
        state = {name.removeprefix(prefix): value.float() for name, value in self.trained(stage).items() if name.startswith(prefix)}
        network.load_state_dict(state)
        return network.to(self.device).eval().requires_grad_(False)

    @cached_property
    def text_encoder(self) -> CLIPTextModelWithProjection:
        return self.frozen(self.new_text_encoder(), "clip", "text.")

    @cached_property
    def image_encoder(self) -> CLIPVisionModelWithProjection:
        return self.frozen(models.image_encoder(self.preset.clip), "clip", "image.")

    @cached_property
    def prior(self) -> PriorTransformer:
        return self.frozen(models.prior(self.preset.prior, self.preset.clip, self.tokenizer.length), "prior")

    @cached_property
    def empty_tokens(self) -> Tensor:
        """The tokens of the empty caption [L], which stands where a caption is left out."""
        return torch.from_numpy(self.tokenizer.encode([""])[0]).to(self.device)

    @torch.no_grad()
    def read(self, tokens: Tensor) -> Text:
        with self.autocast:
            out = self.text_encoder(tokens.long())
        return Text(out.text_embeds.float(), out.last_hidden_state.float(), padding_mask(tokens, self.tokenizer.end))

    @torch.no_grad()
    def see(self, pictures: Tensor) -> Tensor:
        """CLIP's embeddings of pictures at 64 pixels."""
        with self.autocast:
            return self.image_encoder(pictures).image_embeds.float()

    def embeddings(self, count: int) -> Tensor:
        """CLIP's embeddings [count, D] of the first pictures of the data; kept beside the checkpoints."""
        count, batch = min(count, len(self.data)), 2048 if self.device.type == "cuda" else 128
        facts = [self.digest("clip"), count, len(self.data), self.tokenizer.fingerprint, self.data_key]
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        path = self.folder / f"embeddings-{key}.npy"
        if not path.exists():
            self.log(f"embedding {count} pictures")
            found = [self.see(self.data.draw(some, 64)).half() for some in torch.arange(count).split(batch)]
            partial = path.with_suffix(".partial.npy")
            np.save(partial, torch.cat(found).cpu().numpy())
            partial.replace(path)
        return torch.from_numpy(np.load(path)).to(self.device)

    def digest(self, stage: str) -> str:
        """Of a stage's weights."""
        weights = hashlib.sha256()
        for value in self.trained(stage).values():
            weights.update(value.float().cpu().contiguous().numpy().tobytes())
        return weights.hexdigest()

    def initialise(self, network: nn.Module, stage: str) -> None:
        """Gives a new network the weights of the model that training starts from, if there is one."""
        if self.model and stage in adopt.SOURCES:
            adopt.initialise(network, stage, self.model, model_scale=self.rehearse is not None)

    def maybe_compile(self, network: nn.Module) -> None:
        if self.compile_networks:
            # diffusers' Upsample2D asks for torch's version when it is given bf16, and a graph would end there
            upsampling.is_torch_version = torch._dynamo.assume_constant_result(upsampling.is_torch_version)
            network.compile(dynamic=False)
