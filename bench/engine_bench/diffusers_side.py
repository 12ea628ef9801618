"""diffusers' side: a process that loads one network and answers "go" and "save PATH", a JSON line each."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from . import karlo


def answer(**values: object) -> None:
    print(json.dumps(values), flush=True)


CLEAR = 1.2  # a difference between two layouts that one pass of each shows


class Side:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.dtype = karlo.DTYPES[arguments.dtype]
        self.network = arguments.network
        self.module = karlo.load(Path(arguments.model), self.network, self.dtype)
        given = karlo.inputs(self.network, arguments.batch)
        self.given = {name: t if name == "ids" else t.to(self.dtype) for name, t in given.items()}
        self.output: torch.Tensor | None = None

    def go(self) -> float:
        begin = time.perf_counter()
        with torch.inference_mode():
            self.output = karlo.call(self.network, self.module, self.given)
        return time.perf_counter() - begin

    def layout(self, memory_format: torch.memory_format) -> None:
        self.module.to(memory_format=memory_format)
        for name, tensor in self.given.items():
            if tensor.ndim == 4:
                self.given[name] = tensor.contiguous(memory_format=memory_format)

    def settle(self) -> str:
        """Warms up and keeps the faster layout."""
        pictures = any(tensor.ndim == 4 for tensor in self.given.values())
        if not pictures:
            self.go()
            return "contiguous"
        layouts = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
        seconds = {name: self.time_layout(layout) for name, layout in layouts.items()}
        if max(seconds.values()) < CLEAR * min(seconds.values()):  # first passes are slower: once more
            seconds = {name: self.time_layout(layout) for name, layout in layouts.items()}
        best = min(seconds, key=lambda name: seconds[name])
        self.time_layout(layouts[best])
        return best

    def time_layout(self, layout: torch.memory_format) -> float:
        self.layout(layout)
        return self.go()

    def compile(self) -> None:
        self.module.compile()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("network")
    parser.add_argument("model")
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--layout", choices=("try", "contiguous", "channels_last"), default="try")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    side = Side(arguments)
    if arguments.compile:
        side.compile()
    if arguments.layout == "try":
        layout = side.settle()
    else:
        layout = arguments.layout
        if layout == "channels_last":
            side.layout(torch.channels_last)
        side.go()
    answer(layout=layout, torch=torch.__version__)
    for line in sys.stdin:
        match line.split():
            case ["go"]:
                answer(seconds=side.go())
            case ["save", path]:
                assert side.output is not None
                side.output.float().contiguous().numpy().tofile(path)
                answer(saved=list(side.output.shape))
            case other:
                raise SystemExit(f"no such command: {other}")


if __name__ == "__main__":
    main()
