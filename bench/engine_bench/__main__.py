"""The options of ./bench/engine, its table and its JSON."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch

from . import karlo, networks, pictures, workers
from .networks import NETWORKS, Result
from .settings import Settings

ROOT = Path(__file__).resolve().parents[2]
OTHERS = {
    "picture": pictures.run_karlo,
    "small": pictures.run_small,
    "ready": workers.run_ready,
    "memory": workers.run_memory,
}
DEFAULT_ONLY = ("prior", "decoder", "upsampler-1", *OTHERS)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/engine",
        description="Times the engine's networks and diffusers' on the same random weights, alternately in one run.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--only",
        choices=(*NETWORKS, *OTHERS),
        action="append",
        help="a network; a whole Karlo-size picture; pictures of the shipped model; how soon a decoder is ready; "
        "what two of them hold. May be given again",
    )
    parser.add_argument("--dtype", choices=("bf16", "f32"), default="bf16")
    parser.add_argument("--batch", type=int, help="samples in a forward pass; without it each network's own")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeat", type=int, default=3, help="passes of each side; the median counts")
    parser.add_argument("--steps", type=int, nargs=3, default=(25, 25, 7), help="of the Karlo-size picture's stages")
    parser.add_argument("--pictures", type=int, default=3, help="of the shipped model")
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    parser.add_argument("--profile", action="store_true", help="print the engine's times by op (to stderr)")
    parser.add_argument("--folder", type=Path, help="make the models here and keep them; else in /tmp, and deleted")
    parser.add_argument("--prepare", action="store_true", help="only make what --folder needs")
    parser.add_argument("--json", action="store_true", help="a last line with everything as JSON")
    arguments = parser.parse_args()
    if arguments.prepare and not arguments.folder:
        parser.error("--prepare needs --folder")
    return arguments


def table(results: list[Result]) -> None:
    print(
        f"{'network':<12}{'batch':>6}{'TFLOP':>8}{'engine':>10}{'diffusers':>11}{'compiled':>10}{'ratio':>7}"
        f"{'GFLOP/s':>9}{'peak':>6}{'share':>7}{'NMSE':>9}{'theirs':>9}{'GB':>6}{'weights':>9}{'theirs':>8}"
    )
    for r in results:
        compiled = f"{r.compiled:.3f} s" if r.compiled else "-"
        print(
            f"{r.network:<12}{r.batch:>6}{r.operations * 1e-12:>8.2f}{r.engine:>8.3f} s{r.diffusers:>9.3f} s"
            f"{compiled:>10}{r.diffusers / r.engine:>7.2f}{r.gflops():>9.0f}{r.peak:>6.0f}{r.gflops() / r.peak:>7.0%}"
            f"{r.nmse:>9.1e}{r.nmse_diffusers:>9.1e}{r.memory['resident'] * 1e-9:>6.2f}{r.weights * 1e-9:>9.2f}"
            f"{r.memory_diffusers['resident'] * 1e-9:>8.2f}",
            flush=True,
        )


def describe(name: str, record: dict[str, object]) -> None:
    print(
        f"{name}: "
        + ", ".join(f"{key} {round(value, 3) if isinstance(value, float) else value}" for key, value in record.items()),
        flush=True,
    )


def measure(settings: Settings, wanted: list[str]) -> dict[str, dict[str, object]]:
    records: dict[str, dict[str, object]] = {}
    for name in wanted:
        if name in NETWORKS:
            result = networks.run(settings, name)
            records[name] = result.record()
            table([result])
            print(
                f"  diffusers {result.layout}; bare shapes: "
                + "; ".join(f"{m['shape']}: {m['gflops']}" for m in result.shapes)
            )
            continue
        records[name] = OTHERS[name](settings)
        describe(name, records[name])
    return records


def main() -> None:
    arguments = parse()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="unclip-bench-"))
    model = folder / arguments.dtype
    model.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        model=model,
        programs=Path(os.environ["UNCLIP_BENCH_PROGRAMS"]),
        dtype=arguments.dtype,
        batch=arguments.batch,
        threads=arguments.threads,
        repeat=arguments.repeat,
        compile=arguments.compile,
        profile=arguments.profile,
        small=ROOT / "models" / "emoji",
        pictures=arguments.pictures,
        steps=tuple(arguments.steps),
        environment=dict(os.environ),
    )
    wanted = arguments.only or list(DEFAULT_ONLY)
    try:
        if arguments.prepare:
            for name in wanted:
                if name in NETWORKS:
                    networks.prepare(settings, name)
                elif name == "picture":
                    karlo.write_pipeline(settings.model, settings.dtype)
                else:
                    workers.prepare(settings)
            return
        print(f"torch {torch.__version__}, {arguments.dtype}, {arguments.threads} threads", flush=True)
        records = measure(settings, wanted)
    finally:
        if not arguments.folder:
            shutil.rmtree(folder, ignore_errors=True)
    if arguments.json:
        print(json.dumps(records))


if __name__ == "__main__":
    sys.exit(main())
