# SPDX-License-Identifier: Apache-2.0
"""The command line of the evaluation: ./training/evaluate -h."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..context import Context
from ..data.compositor import on_device
from ..data.sprites import Atlas, open_atlas
from ..loop import Budget, Stage, Trainer
from ..presets import PRESETS, Run
from ..train import log, pick_device
from . import metrics
from .judges import Classifier, ClassifierStage, Lessons, SecondClip, SecondClipStage, lessons
from .metrics import Seen, look
from .nearest import nearest
from .pictures import Draw, Engine, Model
from .prompts import SETS, Prompts, prompts

SEED = 0
SHEET_COLUMNS = 10


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="training/evaluate", description="Measures a model directory with independent judges.")
    out.add_argument("model", type=Path, help="a model directory")
    out.add_argument(
        "--preset", choices=PRESETS, default="tiny", help="whose concepts and styles are asked for (default: %(default)s)"
    )
    out.add_argument("--count", type=int, default=100, help="prompts of each set (default: %(default)s)")
    out.add_argument("--sets", default=",".join(SETS), help="which of %(default)s (default: all)")
    out.add_argument("--seeds", type=int, default=2, help="pictures a seen prompt, for diversity (default: %(default)s)")
    out.add_argument("--prior", choices=("diffusion", "none"), default="diffusion", help="none: the text's embedding itself")
    out.add_argument("--steps", type=int, help="of the decoder and the prior, instead of the model's")
    out.add_argument("--guidance", type=float, help="of the decoder, instead of the model's")
    out.add_argument("--through", type=Path, metavar="UNCLIP", help="generate with this program, not with diffusers")
    out.add_argument("--quick", action="store_true", help="no judges: recognition by the nearest rendering alone")
    out.add_argument("--judges", type=Path, help="folder of the judges, trained when missing (default: out/judges/PRESET)")
    out.add_argument("--judge-minutes", type=float, default=10, help="to train each judge for (default: %(default)s)")
    out.add_argument("--scenes", type=int, default=100_000, help="that judges learn from (default: %(default)s)")
    out.add_argument("--sheets", type=Path, metavar="DIR", help="write a contact sheet of each set there")
    out.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    out.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    out.add_argument("--processes", type=int, default=1, help="to draw up data (default: %(default)s)")
    return out


class Judges:
    """Both judges, trained when they are not there yet, and left unfinished judges refused."""

    def __init__(self, context: Context, minutes: float, scenes: int) -> None:
        self.context = context
        batch = 512 if context.device.type == "cuda" else 128
        run = Run(batch=batch, rate=1e-3, minutes=minutes, warm_up=100, cool_down=0.3)
        taught: Lessons | None = None
        for stage_type in (ClassifierStage, SecondClipStage):
            if not self.finished(stage_type.name):
                taught = taught or lessons(context, scenes)
                self.train(stage_type(context, taught, run))
        world = context.world(context.concepts)
        self.classifier = context.frozen(Classifier(len(world.things()), len(world.styles)), ClassifierStage.name)
        tokens = context.tokenizer
        self.clip = context.frozen(SecondClip(len(tokens.vocabulary), tokens.end), SecondClipStage.name)

    def finished(self, name: str) -> bool:
        path = self.context.checkpoint(name)
        return path.exists() and torch.load(path, map_location="cpu", weights_only=True)["finished"]

    def train(self, stage: Stage) -> None:
        torch.manual_seed(1)
        trainer = Trainer(stage, self.context.checkpoint(stage.name), self.context.device, log)
        if trainer.checkpoint.exists():
            trainer.restore()
        trainer.fit(Budget())

    def look(self, pictures: Tensor) -> Seen:
        return look(pictures, self.classifier, self.clip)


def open_tokenizer(context: Context) -> None:
    if not context.checkpoint("tokenizer").exists():
        context.write_tokenizer()


def real_pictures(atlas: Atlas, asked: Prompts) -> Tensor:
    """The scenes as the data draws them."""
    scenes = on_device(asked.table, [atlas], 1, torch.device("cpu"))
    return scenes.draw(torch.arange(len(asked)), 64)


def draw(model: Draw, captions: list[str], seed: int, batch: int) -> Tensor:
    parts = [model(captions[at : at + batch], seed + at).cpu() for at in range(0, len(captions), batch)]
    return torch.cat(parts)


def figures(name: str, seen: Seen, asked: Prompts, context: Context, judges: Judges) -> dict:
    found: dict = metrics.matching(seen, judges.clip, asked)
    if name in ("seen", "held_out"):
        found |= metrics.recognition(seen, asked, asked.category(context))
    elif name in ("relations", "held_out_pairs"):
        found |= metrics.relations(seen, asked) | {"background": metrics.label(seen, asked, "background")}
    elif name == "counts":
        found |= {"count": metrics.label(seen, asked, "count"), "top1": metrics.label(seen, asked, "first")}
    elif name == "colours":
        found |= {"colour": metrics.label(seen, asked, "first_colour"), "top1": metrics.label(seen, asked, "first")}
    else:
        found |= {"text": metrics.label(seen, asked, "word"), "colour": metrics.label(seen, asked, "first_colour")}
    return found


def sheet(path: Path, pictures: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = ((pictures + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    missing = -len(pixels) % SHEET_COLUMNS
    pixels = np.concatenate([pixels, np.full((missing, *pixels.shape[1:]), 255, np.uint8)])
    rows = [np.concatenate(pixels[at : at + SHEET_COLUMNS], 1) for at in range(0, len(pixels), SHEET_COLUMNS)]
    Image.fromarray(np.concatenate(rows)).save(path)


def compare(name: str, context: Context, judges: Judges, asked: Prompts, drawn: list[Tensor], real: Tensor) -> dict:
    """The judges' figures in both languages, and on the real pictures."""
    seen, ceiling = [judges.look(pictures) for pictures in drawn], judges.look(real)
    return {
        "en": figures(name, seen[0], asked, context, judges), "zh": figures(name, seen[1], asked, context, judges),
        "ceiling": figures(name, ceiling, asked, context, judges), "agreement": metrics.agreement(*seen),
        "kid_64": metrics.kid(seen[0].features, ceiling.features),
    }


def evaluate(options: argparse.Namespace, context: Context, judges: Judges | None, model: Draw) -> dict:
    batch = 128 if context.device.type == "cuda" else 16
    sprites = context.world(context.concepts).sprites
    atlas = open_atlas(context.cache, sprites, context.preset.data.atlas, context.packages, options.processes)
    report: dict = {}
    for name in options.sets.split(","):
        asked = prompts(context, name, options.count)
        started = time.monotonic()
        languages = [[said[at] for said in asked.captions] for at in range(2)]
        drawn = [draw(model, captions, SEED, batch) for captions in languages]
        seconds = (time.monotonic() - started) / (2 * len(asked))
        real = real_pictures(atlas, asked)
        found: dict = {"prompts": len(asked), "seconds_a_picture": round(seconds, 3), "en": {}, "zh": {}, "ceiling": {}}
        if judges:
            found |= compare(name, context, judges, asked, drawn, real)
        if name in ("seen", "held_out"):
            for key, pictures in (("en", drawn[0]), ("zh", drawn[1]), ("ceiling", real)):
                found[key] |= nearest(context, atlas, asked, pictures)
        if judges and name == "seen" and options.seeds > 1:
            seeds = [SEED + 10_000 * at for at in range(options.seeds)]
            found["diversity"] = metrics.diversity([judges.look(draw(model, languages[0], seed, batch)) for seed in seeds])
        log(f"{name}: {json.dumps(found['en'])}")
        report[name] = found
        if options.sheets:
            write_sheets(options.sheets, name, asked, {"en": drawn[0], "zh": drawn[1], "real": real})
    return report


def write_sheets(folder: Path, name: str, asked: Prompts, pictures: dict[str, Tensor]) -> None:
    for key, some in pictures.items():
        sheet(folder / f"{name}-{key}.png", some)
    said = (f"{at}\t{english}\t{chinese}\n" for at, (english, chinese) in enumerate(asked.captions))
    (folder / f"{name}.tsv").write_text("".join(said))


def main() -> None:
    options = parser().parse_args()
    for name in options.sets.split(","):
        if name not in SETS:
            sys.exit(f"evaluate: no set is called '{name}'; there are {', '.join(SETS)}")
    preset, device = PRESETS[options.preset], pick_device(options.device)
    folder = options.judges or Path("out") / "judges" / preset.name
    context = Context(preset, folder, device, options.processes, log=log)
    open_tokenizer(context)
    if options.quick:
        options.sets = ",".join(name for name in options.sets.split(",") if name in ("seen", "held_out"))
    judges = None if options.quick else Judges(context, options.judge_minutes, options.scenes)
    model: Draw
    if options.through:
        model = Engine(options.through, options.model)
    else:
        model = Model(options.model, device, options.prior)
        if options.steps:
            model.steps |= {"prior": options.steps, "decoder": options.steps}
        if options.guidance:
            model.guidance["decoder"] = options.guidance
    report = {"model": str(options.model), "preset": preset.name, "sets": evaluate(options, context, judges, model)}
    if options.json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        for name, found in report["sets"].items():
            print(f"{name}: " + json.dumps({k: v for k, v in found["en"].items() if not isinstance(v, dict)}))

