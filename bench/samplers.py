# SPDX-License-Identifier: Apache-2.0
"""What samplers and reuse save, and what they cost: each option against the exact picture, on one model.

For the pictures: prompts times options through `unclip generate`, one seed. PSNR is against the row's reference: the
exact picture where the noise is the same, or DDIM in 100 steps for the solvers, which walk to that picture. "Text" is
the mean cosine of picture and caption in the model's own CLIP space, with the difference from the exact pictures' and
that difference's standard error over the prompts. For the times (--times): nothing but times, the exact picture before
and after each group of options; let nothing else run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPTextModelWithProjection, CLIPTokenizerFast, CLIPVisionModelWithProjection

ROOT = Path(__file__).parent.parent
SEED = 4001

PROMPTS = (
    "a red heart", "a yellow star on a blue background", "a smiling face with hearts", "two dogs",
    "a slice of pizza", "a blue car on a green background", "a rocket", "三只猫",
    "an octopus", "红色背景上的苹果", "a violin on a red background", "a ship",
    "a crescent moon", "一棵树", "a brown mushroom on an orange background", "a green diamond left of a black circle",
)  # fmt: skip


@dataclass(frozen=True)
class Option:
    """`flags` of `unclip generate`, whose pictures of `size` are held against the reference's."""

    name: str
    size: int
    flags: str = ""
    reference: str = "exact"


SOLVERS = "ddim in 100 steps"
OPTIONS = (
    Option("exact", 64),
    Option(SOLVERS, 64, "--sampler-decoder ddim --steps-decoder 100", SOLVERS),
    Option("decoder ddpm in 12 steps", 64, "--steps-decoder 12"),
    Option("decoder reuse 2", 64, "--reuse-decoder 2"),
    Option("decoder reuse 3", 64, "--reuse-decoder 3"),
    Option("decoder ddim in 25 steps", 64, "--sampler-decoder ddim --steps-decoder 25", SOLVERS),
    Option("decoder dpm-solver++ in 25 steps", 64, "--sampler-decoder dpm-solver++ --steps-decoder 25", SOLVERS),
    Option("decoder dpm-solver++ in 13 steps", 64, "--sampler-decoder dpm-solver++ --steps-decoder 13", SOLVERS),
    Option("decoder dpm-solver++ in 12 steps", 64, "--sampler-decoder dpm-solver++ --steps-decoder 12", SOLVERS),
    Option("decoder dpm-solver++ in 8 steps", 64, "--sampler-decoder dpm-solver++ --steps-decoder 8", SOLVERS),
    Option("exact", 256),
    Option("upsampler-1 ddpm in 3 steps", 256, "--steps-upsampler-1 3"),
    Option("upsampler-1 dpm-solver++ in 3 steps", 256, "--sampler-upsampler-1 dpm-solver++ --steps-upsampler-1 3"),
    Option("upsampler-1 reuse 2", 256, "--reuse-upsampler-1 2"),
    Option("upsampler-1 reuse 4", 256, "--reuse-upsampler-1 4"),
    Option("exact", 1024),
    Option("upsampler-2 reuse 2", 1024, "--reuse-upsampler-2 2"),
    Option("upsamplers in 3 and 2 steps", 1024, "--steps-upsampler-1 3 --steps-upsampler-2 2"),
    Option(
        "upsamplers in 4 and 2 steps, reuse 2",
        1024,
        "--steps-upsampler-1 4 --reuse-upsampler-1 2 --steps-upsampler-2 2 --reuse-upsampler-2 2",
    ),
    Option(
        "upsamplers dpm-solver++ in 2 steps",
        1024,
        "--sampler-upsampler-1 dpm-solver++ --steps-upsampler-1 2 "
        "--sampler-upsampler-2 dpm-solver++ --steps-upsampler-2 2",
    ),
    Option(
        "upsamplers in 3 and 2 steps, decoder dpm-solver++ in 12",
        1024,
        "--steps-upsampler-1 3 --steps-upsampler-2 2 --sampler-decoder dpm-solver++ --steps-decoder 12",
    ),
)


class Maker:
    """Pictures of one unclip and model, each made once and kept in a folder."""

    def __init__(self, unclip: Path, model: Path, folder: Path) -> None:
        self.unclip, self.model, self.folder = unclip, model, folder

    def run(self, option: Option, prompt: str, out: Path) -> dict[str, float]:
        command = [str(self.unclip), "generate", prompt, "--model", str(self.model), "--size", str(option.size)]
        command += ["--seed", str(SEED), "--out", str(out), "--json", "--quiet", *option.flags.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"bench/samplers: {' '.join(command)}: {done.stderr.strip()}")
        return json.loads(done.stdout)["compute_ms"]

    def picture(self, option: Option, number: int) -> Path:
        out = self.folder / f"{option.size}-{option.name.replace(' ', '-')}" / str(number)
        path = out / "0.png"
        if not path.exists():
            self.run(option, PROMPTS[number], out)
        return path


class Judge:
    """The model's own CLIP."""

    def __init__(self, model: Path) -> None:
        self.vision = CLIPVisionModelWithProjection.from_pretrained(model / "image_encoder").eval()
        self.text = CLIPTextModelWithProjection.from_pretrained(model / "text_encoder").eval()
        self.tokens = CLIPTokenizerFast.from_pretrained(model / "tokenizer")
        self.pixels = CLIPImageProcessor.from_pretrained(model / "feature_extractor")

    def texts(self, texts: tuple[str, ...]) -> torch.Tensor:
        rows = [self.text(**self.tokens(t, return_tensors="pt", truncation=True)).text_embeds for t in texts]
        return torch.nn.functional.normalize(torch.cat(rows), dim=-1)

    def pictures(self, paths: list[Path]) -> torch.Tensor:
        given = self.pixels(images=[Image.open(path).convert("RGB") for path in paths], return_tensors="pt")
        return torch.nn.functional.normalize(self.vision(**given).image_embeds, dim=-1)


def psnr(a: Path, b: Path) -> float:
    x, y = (np.asarray(Image.open(path).convert("RGB")).astype(float) for path in (a, b))
    error = float(np.mean((x - y) ** 2))
    return 10 * np.log10(255**2 / error) if error else float("inf")


def find(name: str, size: int) -> Option:
    return next(option for option in OPTIONS if (option.name, option.size) == (name, size))


def measure(maker: Maker, judge: Judge, option: Option, count: int) -> dict[str, object]:
    paths = [maker.picture(option, i) for i in range(count)]
    exact = [maker.picture(find("exact", option.size), i) for i in range(count)]
    reference = [maker.picture(find(option.reference, option.size), i) for i in range(count)]
    captions = judge.texts(PROMPTS[:count])
    seen, seen_exact = judge.pictures(paths), judge.pictures(exact)
    text = (seen * captions).sum(1)
    change = text - (seen_exact * captions).sum(1)
    row: dict[str, object] = {"option": option.name, "size": option.size, "flags": option.flags, "prompts": count}
    if option.name != option.reference:
        decibel = [psnr(a, b) for a, b in zip(paths, reference, strict=True)]
        row |= {"reference": option.reference, "psnr": float(np.mean(decibel)), "psnr_least": min(decibel)}
    return row | {
        "text": float(text.mean()),
        "text_change": float(change.mean()),
        "text_change_error": float(change.std() / count**0.5),
        "likeness": float((seen * seen_exact).sum(1).mean()),
    }


def time_group(maker: Maker, options: list[Option], folder: Path) -> list[dict[str, object]]:
    """Milliseconds of each option's stages beside the exact picture's, which is made first and last."""
    exact = find("exact", options[0].size)
    runs = [maker.run(option, PROMPTS[0], folder / "times") for option in [exact, *options, exact]]
    base = {stage: (runs[0][stage] + runs[-1][stage]) / 2 for stage in runs[0]}
    rows = []
    for option, run in zip(options, runs[1:-1], strict=True):
        faster = {stage: base[stage] / run[stage] for stage in run if stage in option.flags}
        rows.append(
            {"option": option.name, "size": option.size, "seconds": sum(run.values()) / 1000,
             "exact_seconds": sum(base.values()) / 1000, "ratio": sum(base.values()) / sum(run.values()),
             "stages": faster}
        )  # fmt: skip
    return rows


def table(rows: list[dict[str, object]]) -> str:
    lines = ["| picture | option | PSNR, mean / least | against | text, change | likeness |", "|---|---|---|---|---|---|"]
    for row in rows:
        decibel = f"{row['psnr']:.1f} / {row['psnr_least']:.1f} dB" if "psnr" in row else ""
        lines.append(
            f"| {row['size']} px | {row['option']} | {decibel} | {row.get('reference', '')} "
            f"| {row['text']:.3f}, {row['text_change']:+.3f} ± {row['text_change_error']:.3f} | {row['likeness']:.3f} |"
        )
    return "\n".join(lines)


def time_table(rows: list[dict[str, object]]) -> str:
    lines = ["| picture | option | seconds | exact | ratio | of the stage |", "|---|---|---|---|---|---|"]
    for row in rows:
        stages = ", ".join(f"{stage} {ratio:.2f}" for stage, ratio in row["stages"].items())
        lines.append(
            f"| {row['size']} px | {row['option']} | {row['seconds']:.2f} | {row['exact_seconds']:.2f} "
            f"| {row['ratio']:.2f} | {stages} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/samplers", description=__doc__)
    parser.add_argument("--unclip", type=Path, default=ROOT / "build/bin/unclip", metavar="FILE")
    parser.add_argument("--model", type=Path, default=ROOT / "models/emoji", metavar="DIR")
    parser.add_argument("--folder", type=Path, required=True, metavar="DIR", help="keeps the pictures, to go on from")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), metavar="N", help=f"1 to {len(PROMPTS)}")
    parser.add_argument("--size", type=int, action="append", choices=(64, 256, 1024), help="only pictures of that size")
    parser.add_argument("--times", action="store_true", help="measure times instead")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    maker = Maker(arguments.unclip, arguments.model.resolve(), arguments.folder)
    sizes = arguments.size or (64, 256, 1024)
    rows = []
    if arguments.times:
        for size in sizes:
            chosen = [option for option in OPTIONS if option.size == size and option.name not in ("exact", SOLVERS)]
            rows += time_group(maker, chosen, arguments.folder)
    else:
        judge = Judge(arguments.model)
        count = max(1, min(arguments.prompts, len(PROMPTS)))
        rows = [measure(maker, judge, option, count) for option in OPTIONS if option.size in sizes]
    print(json.dumps(rows, indent=2) if arguments.json else (time_table if arguments.times else table)(rows))


if __name__ == "__main__":
    main()
