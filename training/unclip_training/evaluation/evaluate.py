# SPDX-License-Identifier: Apache-2.0
"""The command line of the evaluation: ./training/evaluate -h."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from ..context import Context
from ..data.sprites import open_atlas
from ..directory import Unfit
from ..directory import check as check_directory
from ..drawing import Engine
from ..presets import PRESETS, Run
from ..train import log, pick_device
from . import large, likeness, plots, priors, report, sweeps, upsamplers
from .judging import Examiner, Judges
from .pictures import ENLARGING, Draw, Model, Through
from .prompts import SETS, prompts
from .sets import ICONS, Sets
from .sweeps import SWEEPS

SHIPPED = Path(__file__).resolve().parents[3] / "models" / "emoji"
NO_PACKAGE = f"{likeness.PACKAGE} is not installed"
COST = """\
On two idle cores of a processor a picture of 64 pixels costs about 0.3 s, of 256 half a second more, of 1024 five seconds
more; where other work shares them, twice that and more. With the defaults that is 6 minutes for the sets, 1 for the large
pictures, 1 for the priors, 3 for the upsamplers and 2 for the sweeps; the first time, --judge-minutes more for each of
two judges and --regression-minutes for each of two networks."""


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="training/evaluate", description="Measures a model directory with independent judges.", epilog=COST,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = out.add_argument_group("what")
    what.add_argument("model", type=Path, nargs="?", default=SHIPPED, help="a model directory (default: the one that ships)")
    what.add_argument(
        "--preset", choices=PRESETS, default="tiny", help="whose concepts and styles are asked for (default: %(default)s)"
    )
    what.add_argument("--sets", default=",".join(SETS), help="which of %(default)s (default: all)")
    what.add_argument("--count", type=int, default=64, help="prompts of each set (default: %(default)s)")
    what.add_argument("--seeds", type=int, default=2, help="pictures a seen prompt, for diversity (default: %(default)s)")
    what.add_argument("--large-count", type=int, default=8, help="pictures at 256 and at 1024 (default: %(default)s)")
    what.add_argument("--few", type=int, default=16, help="prompts of the ablation and the sweeps (default: %(default)s)")
    what.add_argument(
        "--ablation", action=argparse.BooleanOptionalAction, default=True, help="all three priors on few seen prompts"
    )
    what.add_argument(
        "--upsamplers", action=argparse.BooleanOptionalAction, default=True, help="against Lanczos and a regression network"
    )
    what.add_argument(
        "--sweep", action="append", metavar="NAME=A,B,...", help="guidance or steps of the decoder, on few seen prompts; "
        "without values: the usual ones; none: no sweep (default: guidance and steps)",
    )
    add_how(out)
    add_output(out)
    return out


def add_how(out: argparse.ArgumentParser) -> None:
    how = out.add_argument_group("how")
    how.add_argument(
        "--prior", choices=sweeps.PRIORS, default="diffusion", help="none: the text's embedding itself (default: %(default)s)"
    )
    how.add_argument("--steps", type=int, help="of the decoder and the prior, instead of the model's")
    how.add_argument("--guidance", type=float, help="of the decoder, instead of the model's")
    how.add_argument(
        "--through", type=Path, metavar="UNCLIP", help="draw sets and large pictures with this program, not with diffusers"
    )
    how.add_argument("--quick", action="store_true", help="no judges: recognition by the nearest rendering alone")
    how.add_argument("--judges", type=Path, help="folder of the judges, trained when missing (default: out/judges/PRESET)")
    how.add_argument(
        "--judge-minutes", type=float, default=10, help="to train each judge for; one that had fewer goes on (default: %(default)s)"
    )
    how.add_argument(
        "--regression-minutes", type=float, default=5, help="to train each regression network for (default: %(default)s)"
    )
    how.add_argument("--scenes", type=int, default=100_000, help="that judges learn from (default: %(default)s)")
    how.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    how.add_argument("--processes", type=int, default=1, help="to draw up data (default: %(default)s)")


def add_output(out: argparse.ArgumentParser) -> None:
    where = out.add_argument_group("output: tables in Markdown")
    where.add_argument("--json", action="store_true", help="print the report as one JSON object instead")
    where.add_argument("--report", type=Path, metavar="FILE.md", help="write the tables there, too")
    where.add_argument(
        "--compare", type=Path, nargs="+", metavar="FILE.json", help="put the report of an earlier run beside this one's, "
        "or those of two runs beside each other, without a third run",
    )
    where.add_argument("--sheets", type=Path, metavar="DIR", help="write a contact sheet of each set and the sweeps' plots there")


def chosen_sweeps(given: list[str] | None) -> dict[str, tuple[float, ...]]:
    found: dict[str, tuple[float, ...]] = {}
    for each in given if given is not None else list(SWEEPS):
        name, _, values = each.partition("=")
        if each == "none":
            continue
        if name not in SWEEPS:
            sys.exit(f"evaluate: no sweep is called '{name}'; there are {', '.join(SWEEPS)}")
        try:
            given_values = (float(value) for value in values.split(",")) if values else SWEEPS[name]
            found[name] = tuple(int(value) if value == int(value) else value for value in given_values)
        except (ValueError, OverflowError):
            sys.exit(f"evaluate: '{each}' is not NAME=NUMBER,NUMBER,...")
        if name == "steps" and any(value < 2 or value != int(value) for value in found[name]):
            sys.exit(f"evaluate: '{each}': steps are whole numbers from 2")
    return found


def check(options: argparse.Namespace) -> None:
    for name in options.sets.split(","):
        if name not in SETS:
            sys.exit(f"evaluate: no set is called '{name}'; there are {', '.join(SETS)}")
    if not (options.model / "model_index.json").exists():
        sys.exit(f"evaluate: '{options.model}' is no model directory")
    try:
        check_directory(options.model)
    except Unfit as error:
        sys.exit(f"evaluate: {error}")
    if options.steps is not None and options.steps < 2:
        sys.exit("evaluate: --steps begins at 2")
    if options.prior == "autoregressive" and not (options.model / priors.FOLDER).exists():
        sys.exit(f"evaluate: '{options.model}' has no {priors.FOLDER}/; train it with --stage ar-prior")
    if options.through and options.prior != "diffusion":
        sys.exit("evaluate: --through has the diffusion prior alone")


class Evaluation:
    """All parts of a report, one method each."""

    def __init__(self, options: argparse.Namespace, context: Context) -> None:
        self.options, self.context, self.device = options, context, context.device
        self.model = self.open_model()
        self.drawer: Draw = self.model
        if options.through:
            self.drawer = Through(Engine(options.through, options.model, self.flags()))
        if not context.checkpoint("tokenizer").exists():
            context.write_tokenizer()
        self.judges = None if options.quick else Judges(context, self.run(512, 128, options.judge_minutes), options.scenes)
        sprites = context.world(context.concepts).sprites
        self.atlas = open_atlas(context.cache, sprites, context.preset.data.atlas, context.packages, options.processes)
        self.examiner = Examiner(context, self.atlas, self.judges, 128 if self.device.type == "cuda" else 16)

    def run(self, batch: int, small_batch: int, minutes: float) -> Run:
        """How a judge or a regression network is trained."""
        return Run(batch if self.device.type == "cuda" else small_batch, 1e-3, minutes=minutes, warm_up=100, cool_down=0.3)

    def open_model(self) -> Model:
        options = self.options
        model = Model(options.model, self.device, options.prior)
        if options.steps:
            model.steps |= {"prior": options.steps, "decoder": options.steps}
        if options.guidance is not None:
            model.guidance["decoder"] = options.guidance
        return model

    def flags(self) -> tuple[str, ...]:
        steps, guidance = self.options.steps, self.options.guidance
        found = (f"--steps-prior={steps}", f"--steps-decoder={steps}") if steps else ()
        return found if guidance is None else (*found, f"--guidance-decoder={guidance}")

    def sets(self) -> tuple[dict, object]:
        """Each set's figures, and the kernel distance of all at 64 pixels."""
        options = self.options
        asked = [name for name in options.sets.split(",") if self.judges or name in ICONS]
        sets = Sets(self.examiner, self.drawer, options.seeds, options.sheets)
        return {name: sets.examine(name, options.count) for name in asked}, sets.kid()

    def without(self, size: int) -> str | None:
        """What an upsampler lacks, if anything."""
        needed = f"{ENLARGING[size][0]}_first"
        return None if (self.options.model / needed).exists() else f"the model has no {needed}/"

    def large_kid(self, size: int) -> object:
        count = self.options.large_count
        if reason := self.without(size):
            return reason
        if not self.judges:
            return report.NO_JUDGES
        if count < 2:
            return "a distance needs --large-count 2 or more"
        asked = prompts(self.context, "seen", count)
        scenes = large.scenes_at(self.context, asked, self.atlas, size)
        found = large.kid(self.drawer, asked, scenes, size, self.judges)
        log(f"KID at {size}: {found}")
        return found

    def enlarging(self, size: int) -> object:
        """The upsampler that ends at `size` pixels against others."""
        options = self.options
        if reason := self.without(size):
            return reason
        if options.large_count < 1:
            return "--large-count 0"
        regressed = None
        if self.judges:
            regressed = upsamplers.regression(self.context, size, self.run(128, 16, options.regression_minutes), options.scenes)
        asked = prompts(self.context, "seen", options.large_count)
        scenes = large.scenes_at(self.context, asked, self.atlas, size)
        ways = upsamplers.ways(self.model.upsampler(size), regressed, self.device)
        perceptual = likeness.distance(large.HOST)
        found = upsamplers.compare(scenes, size, ways, perceptual)
        if not regressed:
            found["regression"] = "--quick trains no network"
        for way in found.values():
            if isinstance(way, dict) and way["st_lpips"] is None:
                way["st_lpips"] = NO_PACKAGE
        return found

    def sweeps(self) -> dict:
        found = {name: "not asked for by --sweep" for name in SWEEPS}
        for name, values in chosen_sweeps(self.options.sweep).items():
            found[name] = sweeps.sweep(self.examiner, self.model, name, values, self.options.few, self.options.seeds)
            if self.options.sheets:
                self.plot(name, found[name])
        return found

    def plot(self, name: str, rows: list[dict]) -> None:
        if plots.available():
            plots.draw(self.options.sheets / f"sweep-{name}.png", name, rows)
        else:
            log("no plots: matplotlib is not installed")

    def report(self) -> dict:
        options, started = self.options, time.monotonic()
        found, distance = self.sets()
        whole: dict = {"model": named(options.model), "preset": options.preset, "quick": options.quick}
        whole |= {"count": options.count, "seeds": options.seeds, "judges": self.judges.weights if self.judges else None, "sets": found}
        whole["kid"] = {"64": report.NO_JUDGES if options.quick else distance}
        whole["kid"] |= {str(size): self.large_kid(size) for size in ENLARGING}
        whole["priors"] = sweeps.ablation(self.examiner, self.model, options.few) if options.ablation else "--no-ablation"
        whole["upsamplers"] = (
            {str(size): self.enlarging(size) for size in ENLARGING} if options.upsamplers else "--no-upsamplers"
        )
        whole["sweeps"] = self.sweeps()
        whole["seconds"] = round(time.monotonic() - started)
        return whole | {"summary": report.summary(whole)}


def named(folder: Path) -> str:
    """The model's path as it is said, but the shipped one's from the repository's root."""
    return "models/emoji" if folder.resolve() == SHIPPED else str(folder)


def main() -> None:
    options = parser().parse_args()
    if len(options.compare or ()) > 2:
        sys.exit("evaluate: --compare takes one report or two")
    try:
        earlier = [report.read(path) for path in options.compare or ()]
    except (OSError, ValueError) as error:
        sys.exit(f"evaluate: {error}")
    if len(earlier) < 2:
        check(options)
        chosen_sweeps(options.sweep)
        preset = PRESETS[options.preset]
        folder = options.judges or Path("out") / "judges" / preset.name
        context = Context(preset, folder, pick_device(options.device), options.processes, log=log)
        latest = Evaluation(options, context).report()
    else:
        latest = earlier.pop()
    tables = report.side_by_side(earlier[0], latest) if earlier else report.markdown(latest)
    for difference in report.differences(earlier[0], latest) if earlier else ():
        log(f"beware, the reports can hardly be compared: {difference}")
    if options.report:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(tables)
    print(json.dumps(latest, ensure_ascii=False) if options.json else tables)
