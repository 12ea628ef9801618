# SPDX-License-Identifier: Apache-2.0
"""What samplers and reuse save, and what they cost: each option against the exact picture, on one model.

For the pictures: prompts times options through `unclip generate`, one seed. PSNR is against the row's reference: the
exact picture where the noise is the same, or DDIM in 100 steps for the solvers, which walk to that picture. "Text" is
the mean cosine of picture and caption in the model's own CLIP space, with the difference from the exact pictures' and
that difference's standard error over the prompts; "likeness" the cosine of the picture and the exact one. For the
times (--times): CPU seconds of a process with one thread, its start included, the least of four rounds: what else runs
changes them little.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SEED = 4001
ROUNDS = 4  # of times

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
    Option("upsamplers in 2 steps", 1024, "--steps-upsampler-1 2 --steps-upsampler-2 2"),
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

    def run(self, option: Option, prompt: str, out: Path, *more: str) -> None:
        command = [str(self.unclip), "generate", prompt, "--model", str(self.model), "--size", str(option.size)]
        command += ["--seed", str(SEED), "--out", str(out), "--quiet", *option.flags.split(), *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"bench/samplers: {' '.join(command)}: {done.stderr.strip()}")

    def cpu_seconds(self, option: Option) -> float:
        """Of a process that makes one picture with one thread, its start included."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.run(option, PROMPTS[0], self.folder / "times", "--threads", "1")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def picture(self, option: Option, number: int) -> Path:
        out = self.folder / f"{option.size}-{option.name.replace(' ', '-')}" / str(number)
        path = out / "0.png"
        if not path.exists():
            self.run(option, PROMPTS[number], out)
        return path


def find(name: str, size: int) -> Option:
    return next(option for option in OPTIONS if (option.name, option.size) == (name, size))


def measure(maker: Maker, other: Maker | None, sizes: Sequence[int], count: int) -> list[dict[str, object]]:
    """`other` makes the exact picture its way."""
    from samplers_judge import Judge, compare  # torch takes seconds, which --times would spend in vain

    judge, rows = Judge(maker.model), []
    for size in sizes:
        exact = find("exact", size)
        made = [(option, maker) for option in OPTIONS if option.size == size] + ([(exact, other)] if other else [])
        for option, its in made:
            paths = [its.picture(option, i) for i in range(count)]
            against = find(option.reference, size)
            row: dict[str, object] = {"option": option.name if its is maker else its.model.name, "size": size}
            row |= {"reference": against.name, "prompts": count}
            pictures = [[maker.picture(base, i) for i in range(count)] for base in (exact, against)]
            rows.append(row | compare(judge, PROMPTS[:count], paths, *pictures))
    return rows


def time_group(maker: Maker, size: int) -> list[dict[str, object]]:
    """The least of some rounds, in each of which every option and the exact picture have their turn."""
    group = [option for option in OPTIONS if option.size == size and option.name != SOLVERS]
    least = {option.name: float("inf") for option in group}
    for _ in range(ROUNDS):
        for option in group:
            least[option.name] = min(least[option.name], maker.cpu_seconds(option))
    exact = least.pop("exact")
    return [
        {"option": name, "size": size, "seconds": seconds, "exact_seconds": exact, "ratio": exact / seconds}
        for name, seconds in least.items()
    ]


def table(rows: list[dict[str, object]]) -> str:
    lines = ["| picture | option | PSNR, mean / least | against | text, change | likeness |", "|---|---|---|---|---|---|"]
    for row in rows:
        decibel = f"{row['psnr']:.1f} / {row['psnr_least']:.1f} dB" if "psnr" in row else ""
        against = row["reference"] if "psnr" in row else ""
        lines.append(
            f"| {row['size']} px | {row['option']} | {decibel} | {against} "
            f"| {row['text']:.3f}, {row['text_change']:+.3f} ± {row['text_change_error']:.3f} | {row['likeness']:.3f} |"
        )
    return "\n".join(lines)


def time_table(rows: list[dict[str, object]]) -> str:
    lines = ["| picture | option | CPU s | exact, CPU s | ratio |", "|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['size']} px | {row['option']} | {row['seconds']:.2f} | {row['exact_seconds']:.2f} "
            f"| {row['ratio']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/samplers", description=__doc__)
    parser.add_argument("--unclip", type=Path, default=ROOT / "build/bin/unclip", metavar="FILE")
    parser.add_argument("--model", type=Path, default=ROOT / "models/emoji", metavar="DIR")
    parser.add_argument("--folder", type=Path, required=True, metavar="DIR", help="keeps the pictures, to go on from")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), metavar="N", help=f"1 to {len(PROMPTS)}")
    parser.add_argument("--size", type=int, action="append", choices=(64, 256, 1024), help="only pictures of that size")
    parser.add_argument("--beside", type=Path, metavar="DIR", help="the model in another form, int8 say, as an option")
    parser.add_argument("--times", action="store_true", help="measure times instead")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    maker = Maker(arguments.unclip, arguments.model.resolve(), arguments.folder)
    sizes = arguments.size or (64, 256, 1024)
    if arguments.times:
        rows = [row for size in sizes for row in time_group(maker, size)]
    else:
        beside = arguments.beside and Maker(arguments.unclip, arguments.beside.resolve(), arguments.folder / "beside")
        rows = measure(maker, beside, sizes, max(1, min(arguments.prompts, len(PROMPTS))))
    print(json.dumps(rows, indent=2) if arguments.json else (time_table if arguments.times else table)(rows))


if __name__ == "__main__":
    main()
