# SPDX-License-Identifier: Apache-2.0
"""The command line of training: ./training/train -h."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from . import loop
from .adopt import with_sizes_of, with_steps_of
from .context import READERS, Context
from .data.fetch import bundle
from .data.pictures import DataError
from .directory import Unfit
from .export import export
from .loop import Budget, Trainer, pack, unpack
from .presets import PRESETS, STAGES, Preset, Run, fine_tune, smoke
from .stages import make

COMPILING = 90.0  # seconds: with less left, a stage that has to compile is not begun
REHEARSE = 0.5  # of what is seen when fine-tuning
OPTIONAL = frozenset({"ar-prior"})  # left out of "all" by --skip


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="training/train", description="Trains an unCLIP model and writes its directory to FOLDER/model.",
        epilog="Stages build on those before them. Every stage goes on from its last checkpoint with --resume. With both "
        "--from and --data the model is fine-tuned: half an hour of a processor for some dozens of pictures.",
    )
    what = out.add_argument_group("what")
    what.add_argument("--preset", choices=PRESETS, default="tiny", help="sizes, rates and budgets (default: %(default)s)")
    what.add_argument("--smoke", action="store_true", help="the same chain, tiny budgets: a few minutes on a processor")
    what.add_argument(
        "--stage", default="all", metavar="NAMES", help=f"all, or some of {', '.join(STAGES)}, with commas (default: all)"
    )
    what.add_argument("--skip", default="", metavar="NAMES", help="stages that all leaves out, such as ar-prior")
    what.add_argument(
        "--data", type=Path, nargs="+", default=[], metavar="PATH",
        help="folders or WebDataset shards of pictures with captions: instead of the emoji scenes; with --from, among them",
    )
    what.add_argument(
        "--from", dest="model", type=Path, metavar="MODEL", help="start from a model directory, of its sizes, not from random weights"
    )
    what.add_argument(
        "--rehearse", type=float, metavar="SHARE",
        help=f"when fine-tuning, the share of emoji scenes in what the model sees; 0: none, and none are fetched (default: {REHEARSE})",
    )
    when = out.add_argument_group("when")
    when.add_argument("--resume", action="store_true", help="go on from checkpoints, skip what has had its budget")
    when.add_argument("--minutes", type=float, metavar="M", help="stop after M minutes, with a checkpoint")
    when.add_argument(
        "--budget", action="append", default=[], metavar="STAGE=M", help="train a stage for M minutes in all, not the preset's; 0: not"
    )
    when.add_argument("--prepare", action="store_true", help="fetch, render and draw up the data, then stop")
    where = out.add_argument_group("where")
    where.add_argument("--folder", type=Path, help="checkpoints and the model (default: out/training/PRESET)")
    where.add_argument("--parts", type=Path, metavar="DIR", help="also write small checkpoints there, in parts of 15 MB")
    where.add_argument("--from-parts", type=Path, metavar="DIR", help="with --resume: start from these where no checkpoint is")
    where.add_argument("--bundle", type=Path, metavar="FILE", help="write the fetched data as one archive and stop")
    how = out.add_argument_group("how")
    how.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: cuda where there is one)")
    how.add_argument("--compile", action=argparse.BooleanOptionalAction, help="torch.compile (default: on a GPU)")
    how.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="to render and draw up data (default: %(default)s)")
    return out


def chosen_stages(names: str, skipped: str) -> list[str]:
    wanted = STAGES if names == "all" else tuple(names.split(","))
    left_out = tuple(filter(None, skipped.split(",")))
    for name in (*wanted, *left_out):
        if name not in STAGES:
            raise SystemExit(f"train: no stage is called '{name}'; there are {', '.join(STAGES)}")
    return [name for name in STAGES if name in wanted and name not in left_out]


def with_budgets(preset: Preset, budgets: list[str]) -> Preset:
    for budget in budgets:
        name, _, minutes = budget.partition("=")
        if name not in STAGES or name == "tokenizer":
            raise SystemExit(f"train: no stage of '{budget}' has a budget")
        field = name.replace("-", "_")
        stage = getattr(preset, field)
        preset = replace(preset, **{field: replace(stage, run=replace(stage.run, minutes=minutes_of(budget, minutes), steps=0))})
    return preset


def minutes_of(option: str, text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        raise SystemExit(f"train: '{option}' is not STAGE=MINUTES") from None
    if not math.isfinite(found) or found < 0:
        raise SystemExit(f"train: '{option}': minutes are 0 or more, and finite")
    return found


def run_of(preset: Preset, name: str) -> Run:
    return getattr(preset, name.replace("-", "_")).run


def is_off(preset: Preset, name: str) -> bool:
    return name != "tokenizer" and run_of(preset, name).is_off


def is_met(context: Context, name: str) -> bool:
    return loop.is_met(context.checkpoint(name), run_of(context.preset, name))


def preset_for(options: argparse.Namespace) -> Preset:
    """The preset, changed as the options say."""
    preset = PRESETS[options.preset]
    if options.model:
        preset = with_sizes_of(preset, options.model)
    if options.model and options.data:
        preset = fine_tune(with_steps_of(preset, options.model))
    return with_budgets(smoke(preset) if options.smoke else preset, options.budget)


def rehearsed(options: argparse.Namespace) -> float | None:
    """The share of emoji scenes when fine-tuning, else none."""
    for path in options.data:
        if not path.exists():
            raise SystemExit(f"train: '{path}' does not exist")
    if options.model and not (options.model / "model_index.json").exists():
        raise SystemExit(f"train: '{options.model}' is not a model directory: it has no model_index.json")
    if not (options.model and options.data):
        if options.rehearse is not None:
            raise SystemExit("train: --rehearse is for fine-tuning, with --from and --data")
        return None
    share = REHEARSE if options.rehearse is None else options.rehearse
    if not 0 <= share <= 0.95:
        raise SystemExit(f"train: --rehearse {share} is not from 0 to 0.95")
    return share


def pick_device(name: str) -> torch.device:
    device = torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    return device


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def train_stage(name: str, context: Context, budget: Budget, resume: bool, parts: Path | None) -> bool:
    """Trains one stage as far as the budget goes; returns whether it is finished."""
    checkpoint = context.checkpoint(name)
    copied = name == "tokenizer" and context.model is not None  # as quickly again
    if checkpoint.exists() and not (resume or copied):
        raise SystemExit(f"train: '{checkpoint}' exists: --resume goes on from it, and another --folder begins anew")
    if name == "tokenizer":
        if not (checkpoint.exists() and resume):
            context.write_tokenizer()
        finished = True
    elif is_met(context, name):
        log(f"{name}: has had its {run_of(context.preset, name).budget()}; --budget {name}=MINUTES gives it more")
        return True
    elif context.compile_networks and not budget.allows(COMPILING):
        return False
    else:
        torch.manual_seed(STAGES.index(name))
        trainer = Trainer(make(name, context), checkpoint, context.device, log)
        if checkpoint.exists():
            trainer.restore()
        finished = trainer.fit(budget)
    if parts:
        pack(checkpoint, parts)
    return finished


def restore_parts(folder: Path, context: Context) -> None:
    """Puts together the checkpoints of all stages that are in parts and not here yet."""
    for name in STAGES:
        if not context.checkpoint(name).exists() and unpack(folder, name, context.checkpoint(name)):
            log(f"{name}: from {folder}")


def main() -> None:
    started = time.monotonic()
    options = parser().parse_args()
    if options.minutes is not None and not (math.isfinite(options.minutes) and options.minutes > 0):
        raise SystemExit(f"train: --minutes {options.minutes} is no time to train")
    if options.bundle:
        bundle(options.bundle)
        return
    rehearse = rehearsed(options)
    try:
        preset = preset_for(options)
    except Unfit as error:
        raise SystemExit(f"train: {error}") from None
    folder = options.folder or Path("out") / "training" / preset.name
    device = pick_device(options.device)
    compiled = options.compile if options.compile is not None else device.type == "cuda"
    context = Context(preset, folder, device, options.processes, tuple(options.data), compiled, log, options.model, rehearse)
    stages = [name for name in chosen_stages(options.stage, options.skip) if not is_off(preset, name)]
    budget = Budget(started + 60 * options.minutes) if options.minutes else Budget()
    if options.resume and options.from_parts:
        restore_parts(options.from_parts, context)
    check_fit(stages, context, options)
    try:
        run(stages, context, budget, options)
    except DataError as error:
        raise SystemExit(f"train: {error}") from None


def check_fit(stages: list[str], context: Context, options: argparse.Namespace) -> None:
    """Ends a run that would end in a model whose parts don't fit."""
    if options.prepare:
        return
    if "clip" in stages and options.resume and context.checkpoint("clip").exists() and not is_met(context, "clip"):
        check_readers(stages, context)
    left_out = [name for name in context.stale("clip" in stages) if name not in stages]
    if left_out and options.stage == "all":
        raise SystemExit(
            f"train: clip learns on, so {' and '.join(left_out)}, which read its embeddings, must learn too: give them minutes, "
            "or leave clip as it is with --budget clip=0"
        )


def check_readers(stages: list[str], context: Context) -> None:
    """Where CLIP goes on, what was trained on its embeddings must go on, too."""
    done = [name for name in READERS if context.checkpoint(name).exists() and (name not in stages or is_met(context, name))]
    if done:
        raise SystemExit(
            f"train: clip goes on, so {' and '.join(done)}, trained on its embeddings, must go on too: give them --budget "
            "minutes, or clip no more than it had"
        )


def run(stages: list[str], context: Context, budget: Budget, options: argparse.Namespace) -> None:
    if options.prepare:
        train_stage("tokenizer", context, budget, True, options.parts)
        log(f"{len(context.data)} pictures")
        if not is_off(context.preset, "upsampler-2"):
            log(f"{len(context.large_data)} large ones")
        return
    for name in stages:
        if not train_stage(name, context, budget, options.resume, options.parts):
            log(f"{name}: stopped by --minutes; --resume goes on")
            return
    missing = [name for name in STAGES if name not in OPTIONAL and not context.has(name)] + context.stale()
    if missing:
        log(f"no model is written: it lacks {', '.join(missing)}; go on with --stage {','.join(missing)}")
    else:
        export(context, context.folder / "model")

