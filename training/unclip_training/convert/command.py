# SPDX-License-Identifier: Apache-2.0
"""The command line of the converters: ./training/convert -h."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from . import Refused, karlo, lora
from .folders import Change, changes, check_target, convert_model, copy_settings, read, replacing, weights_file, write
from .precision import FORMATS

DESCRIPTION = """\
Converts weights to safetensors, to other number formats, and merges LoRA. Files of torch are read without
running the code that they may hold. SOURCE is one of

  a weights file        (.bin, .ckpt, .pt, .pth, .th, .safetensors): OUT is a .safetensors file
  a model directory     in diffusers' layout, weights in parts too: OUT is one with the same settings and names
  a folder of Karlo's   original checkpoints (prior-ckpt-step=*.ckpt, decoder-ckpt-step=*.ckpt,
                        improved-sr-ckpt-step=*.ckpt, ViT-L-14_stats.th): OUT is a model directory
"""


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="training/convert", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("source", type=Path, metavar="SOURCE")
    out.add_argument("out", type=Path, metavar="OUT", help="is written whole or not at all")
    out.add_argument("--force", action="store_true", help="replace OUT, where it is a file or a model directory")
    numbers = out.add_argument_group("numbers")
    numbers.add_argument(
        "--dtype", choices=FORMATS, help="number format of the result (default: as they are; int8 weights become f32)"
    )
    numbers.add_argument("--saturate", action="store_true", help="write the largest number where the format can't hold one")
    merging = out.add_argument_group("LoRA")
    merging.add_argument("--lora", type=Path, metavar="FILE", help="merge this into the decoder and the prior")
    merging.add_argument("--scale", type=float, metavar="S", help="times this (default: 1)")
    original = out.add_argument_group("Karlo's original checkpoints")
    original.add_argument(
        "--text-encoder", type=Path, metavar="MODEL", help="a model directory whose text_encoder/ and tokenizer/ are taken"
    )
    original.add_argument("--prior-head", type=int, metavar="N", help=f"channels of a head in the prior (default: {karlo.HEAD})")
    original.add_argument("--decoder-head", type=int, metavar="N", help=f"the same in the decoder (default: {karlo.HEAD})")
    return out


def check_options(options: argparse.Namespace, original: bool) -> None:
    if options.scale is not None and options.lora is None:
        raise Refused("--scale is nothing without --lora")
    if options.lora is not None and options.source.is_file():
        raise Refused("--lora needs a model directory")
    if options.saturate and options.dtype is None:
        raise Refused("--saturate is nothing without --dtype")
    if original != (options.text_encoder is not None):
        raise Refused(
            "original checkpoints have no text encoder; --text-encoder names a model directory that has it (OpenAI's ViT-L/14)"
            if original else "--text-encoder is for original checkpoints, of which there are none here"
        )
    if not original and (options.prior_head or options.decoder_head):
        raise Refused("--prior-head and --decoder-head are for original checkpoints, of which there are none here")
    for head in (options.prior_head, options.decoder_head):
        if head is not None and head < 1:
            raise Refused(f"a head of {head} channels")


def convert_file(source: Path, out: Path, change: Change) -> None:
    if out.suffix != ".safetensors":
        raise Refused(f"'{out}' should end in .safetensors, as '{source}' is a file")
    with replacing(out) as partial:
        write(change(source.name, read(source)), partial)


def convert_directory(source: Path, out: Path, change: Change, merges: dict) -> None:
    with replacing(out) as partial:
        partial.mkdir()
        networks = convert_model(source, partial, change)
        for name in merges:
            if name not in networks:
                raise Refused(f"the LoRA changes the {name}, which '{source}' does not have")


def write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def convert_original(options: argparse.Namespace, files: dict[str, Path], change: Change) -> None:
    with replacing(options.out) as partial:
        partial.mkdir()
        for name in karlo.BORROWED:
            borrow(options.text_encoder / name, partial / name, change)
        heads = (options.prior_head or karlo.HEAD, options.decoder_head or karlo.HEAD)
        for name, network in karlo.networks(files, *heads):
            write_json(partial / name / "config.json", network.config)
            write(change(name, network.tensors), partial / name / "diffusion_pytorch_model.safetensors")
        for name, settings in karlo.SCHEDULERS.items():
            write_json(partial / name / "scheduler_config.json", settings)
        write_json(partial / "model_index.json", karlo.INDEX)


def borrow(source: Path, target: Path, change: Change) -> None:
    if not source.is_dir():
        raise Refused(f"'{source}' is not there")
    target.mkdir()
    copy_settings(source, target)
    found = weights_file(source)
    if found is not None:
        write(change(source.name, read(found[0])), target / found[1])
    elif source.name != "tokenizer":
        raise Refused(f"'{source}' has no weights")


def convert(options: argparse.Namespace) -> None:
    source, out = options.source, options.out
    if not source.exists():
        raise Refused(f"'{source}' is not there")
    files = karlo.checkpoints(source) if source.is_dir() else {}
    check_options(options, bool(files))
    if source.is_dir() and not files and not (source / "model_index.json").is_file():
        raise Refused(f"'{source}' has neither model_index.json nor Karlo's original checkpoints")
    check_target(source, out, options.force)
    merges = lora.parse(read(options.lora)) if options.lora else {}
    change = changes(options.dtype, options.saturate, merges, 1.0 if options.scale is None else options.scale)
    if source.is_file():
        convert_file(source, out, change)
    elif files:
        convert_original(options, files, change)
    else:
        convert_directory(source, out, change, merges)


def size_of(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*.safetensors")
    return sum(file.stat().st_size for file in files)


def main() -> None:
    options = parser().parse_args()
    try:
        convert(options)
    except (Refused, OSError) as error:
        sys.exit(f"convert: {error}")
    print(f"wrote {options.out}: {size_of(options.out) / 1e6:.1f} MB of weights", file=sys.stderr)
