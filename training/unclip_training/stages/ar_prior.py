# SPDX-License-Identifier: Apache-2.0
"""The autoregressive prior (unCLIP, section 2.2): the embedding as a sequence of numbers, one PCA direction at a time.

The embedding is turned onto its principal directions, the first `dimensions` of them are each cut into `buckets` of
equal probability, and a causal transformer predicts bucket after bucket. Before them stand the caption's states, its
embedding, and a token that says how well picture and caption fit (their cosine, cut into `dot_buckets`); when sampling
it is drawn from the better half.

Weights as stored: `text_in`, `embedding_in` (linear, width x D), `dot_in` (dot_buckets x width), `bucket_in`
(buckets x width), `position` (sequence x width), per layer `norm1`, `qkv`, `out`, `norm2`, `up`, `down` (GELU between),
`norm`, `head` (buckets x width); buffers `mean`, `directions` (dimensions x D), `edges` (dimensions x buckets - 1),
`centres` (dimensions x buckets), `dot_edges`. The sequence is [L states | embedding | dot | codes]; the output at the
dot token is the first code's distribution. Padding is masked by the caption's mask.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from ..context import Context, Text
from ..loop import pick
from ..presets import ArPrior
from .prior import drop, language


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        count, length, width = x.shape
        heads = self.qkv(self.norm1(x)).view(count, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(*heads, attn_mask=mask)
        x = x + self.out(attended.transpose(1, 2).reshape(count, length, width))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Quantiser(nn.Module):
    """Embeddings to bucket numbers and back."""

    def __init__(self, embedding: int, dimensions: int, buckets: int, dot_buckets: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(embedding))
        self.register_buffer("directions", torch.zeros(dimensions, embedding))
        self.register_buffer("edges", torch.zeros(dimensions, buckets - 1))
        self.register_buffer("centres", torch.zeros(dimensions, buckets))
        self.register_buffer("dot_edges", torch.zeros(dot_buckets - 1))

    @torch.no_grad()
    def fit(self, embeddings: Tensor, dots: Tensor) -> None:
        dimensions, buckets = self.centres.shape
        self.mean.copy_(embeddings.mean(0))
        _, directions = torch.linalg.eigh(torch.cov(embeddings.T))
        self.directions.copy_(directions.T.flip(0)[:dimensions])
        values = self.project(embeddings).sort(0).values
        self.edges.copy_(quantiles(values, buckets - 1).T)
        starts = (torch.arange(buckets, device=values.device) * len(values)) // buckets
        stops = torch.cat([starts[1:], starts.new_tensor([len(values)])])
        sums = functional.pad(values.double().cumsum(0), (0, 0, 1, 0))
        self.centres.copy_(((sums[stops] - sums[starts]) / (stops - starts)[:, None]).T)
        self.dot_edges.copy_(quantiles(dots.sort().values[:, None], len(self.dot_edges))[:, 0])

    def project(self, embeddings: Tensor) -> Tensor:
        return (embeddings - self.mean) @ self.directions.T

    def encode(self, embeddings: Tensor) -> Tensor:
        """Bucket numbers [n, dimensions]."""
        return torch.searchsorted(self.edges, self.project(embeddings).T.contiguous(), right=True).T

    def decode(self, codes: Tensor) -> Tensor:
        values = self.centres.gather(1, codes.T).T
        return values @ self.directions + self.mean


def quantiles(ordered: Tensor, count: int) -> Tensor:
    """The values [count, d] that cut sorted columns [n, d] into count + 1 equal shares."""
    places = (torch.arange(1, count + 1, device=ordered.device) * len(ordered)) // (count + 1)
    return ordered[places]


class ArPriorNetwork(nn.Module):
    def __init__(self, config: ArPrior, embedding: int, text_width: int, length: int) -> None:
        super().__init__()
        width = config.width
        self.length = length
        self.quantiser = Quantiser(embedding, config.dimensions, config.buckets, config.dot_buckets)
        self.text_in, self.embedding_in = nn.Linear(text_width, width), nn.Linear(embedding, width)
        self.dot_in, self.bucket_in = nn.Embedding(config.dot_buckets, width), nn.Embedding(config.buckets, width)
        self.position = nn.Parameter(0.02 * torch.randn(length + 1 + config.dimensions, width))
        self.layers = nn.ModuleList(Block(width, config.heads) for _ in range(config.layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, config.buckets)

    def forward(self, text: Text, dot: Tensor, codes: Tensor) -> Tensor:
        """Logits [n, codes + 1, buckets] of each code from those before it."""
        parts = [self.text_in(text.states), self.embedding_in(text.embedding)[:, None], self.dot_in(dot)[:, None]]
        x = torch.cat([*parts, self.bucket_in(codes)], 1)
        x = x + self.position[: x.shape[1]]
        seen = functional.pad(text.mask, (0, x.shape[1] - self.length), value=True)
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        mask = (seen[:, None, None, :] & causal) | torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        for layer in self.layers:
            x = layer(x, mask)
        return self.head(self.norm(x[:, self.length + 1 :]))

    @torch.no_grad()
    def sample(self, text: Text, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """Embeddings [n, D] for captions, with the fit drawn from its better half."""
        buckets, count = self.dot_in.num_embeddings, len(text.embedding)
        device = text.embedding.device
        dot = torch.randint(buckets // 2, buckets, (count,), generator=generator, device=device)
        codes = torch.zeros(count, 0, dtype=torch.long, device=device)
        for _ in range(len(self.quantiser.centres)):
            chances = (self(text, dot, codes)[:, -1].float() / temperature).softmax(-1)
            codes = torch.cat([codes, torch.multinomial(chances, 1, generator=generator)], 1)
        return self.quantiser.decode(codes)


class ArPriorStage:
    name = "ar-prior"

    def __init__(self, context: Context) -> None:
        self.context = context
        self.config = context.preset.ar_prior
        self.run = self.config.run
        self.embeddings = context.embeddings(context.preset.prior.scenes)
        clip = context.preset.clip
        self.network = ArPriorNetwork(self.config, clip.embedding, clip.width, context.tokenizer.length).to(context.device)
        known = self.embeddings.float()
        some = torch.arange(min(len(known), 8192), device=context.device)
        text = context.read(context.data.tokens[some, 0]).embedding
        self.network.quantiser.fit(known, self.fit_of(text, known[some]))
        context.maybe_compile(self.network)

    @staticmethod
    def fit_of(text: Tensor, image: Tensor) -> Tensor:
        return functional.cosine_similarity(text, image)

    def loss(self, progress: float, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        device, data, quantiser = self.context.device, self.context.data, self.network.quantiser
        index = pick(len(self.embeddings), self.run.batch, generator).to(device)
        image = self.embeddings[index].float()
        tokens = language(data.tokens[index], generator)
        dot = torch.bucketize(self.fit_of(self.context.read(tokens).embedding, image), quantiser.dot_edges)
        text = self.context.read(drop(tokens, self.context.empty_tokens, self.config.text_drop, generator))
        codes = quantiser.encode(image)
        with self.context.autocast:
            logits = self.network(text, dot, codes[:, :-1])
        loss = functional.cross_entropy(logits.float().flatten(0, 1), codes.flatten())
        return loss, {"kept": 1 - (quantiser.decode(codes) - image).square().sum() / (image - quantiser.mean).square().sum()}


def export(context: Context, folder: Path) -> None:
    """Writes config.json and model.safetensors (bf16; the quantiser's tables in f32)."""
    config, clip = context.preset.ar_prior, context.preset.clip
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "_class_name": "UnCLIPAutoregressivePrior", "embedding_dim": clip.embedding, "text_dim": clip.width,
        "num_embeddings": context.tokenizer.length, "width": config.width, "num_layers": config.layers,
        "num_attention_heads": config.heads, "dimensions": config.dimensions, "buckets": config.buckets,
        "dot_buckets": config.dot_buckets, "layer_norm_eps": 1e-5,
    }
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    weights = {
        name: (value.float() if name.startswith("quantiser.") else value.bfloat16()).cpu().contiguous()
        for name, value in context.trained("ar-prior").items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
