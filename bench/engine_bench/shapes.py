"""What a forward pass has to compute, counted from the shapes: nothing is computed for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from . import karlo


@dataclass(frozen=True)
class Work:
    operations: int  # multiplications and additions of all products and convolutions
    shapes: Counter[str]  # how often a shape occurs, as bench-onednn takes it
    parameters: int


def shape_operations(shape: str) -> int:
    """Of one occurrence."""
    kind, *numbers = shape.split()
    match kind, [int(n) for n in numbers]:
        case "conv", [ih, iw, ic, oc, k, stride]:
            return 2 * (ih // stride) * (iw // stride) * ic * oc * k * k
        case "matmul", [m, k, n]:
            return 2 * m * k * n
    raise ValueError(shape)


def count(network: str, batch: int) -> Work:
    """Convolutions count as one for each sample (so the library is called), products as one of all rows."""
    shapes: Counter[str] = Counter()

    def conv(module: torch.nn.Conv2d, args: tuple[torch.Tensor], out: torch.Tensor) -> None:
        n, ic, ih, iw = args[0].shape
        stride = module.stride[0]
        shapes[f"conv {ih} {iw} {ic} {module.out_channels} {module.kernel_size[0]} {stride}"] += n

    def linear(module: torch.nn.Linear, args: tuple[torch.Tensor], out: torch.Tensor) -> None:
        rows = args[0].shape[:-1].numel()
        shapes[f"matmul {rows} {module.in_features} {module.out_features}"] += 1

    with torch.device("meta"):
        module = karlo.make(network).eval()
        given = {name: torch.empty_like(tensor) for name, tensor in karlo.inputs(network, batch).items()}
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_hook(conv)
        elif isinstance(part, torch.nn.Linear):
            part.register_forward_hook(linear)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        karlo.call(network, module, {name: tensor.to("meta") for name, tensor in given.items()})
    return Work(counter.get_total_flops(), shapes, sum(p.numel() for p in module.parameters()))


def dominant(work: Work, share: float = 0.8) -> list[str]:
    """The shapes with the most work that make up `share` of it."""
    chosen: list[str] = []
    done = 0
    by_work = sorted(work.shapes, key=lambda shape: -work.shapes[shape] * shape_operations(shape))
    for shape in by_work:
        if done >= share * work.operations:
            break
        chosen.append(shape)
        done += work.shapes[shape] * shape_operations(shape)
    return chosen
