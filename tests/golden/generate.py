"""Makes the goldens: all of them, or those of the subjects named as arguments."""

from __future__ import annotations

import sys
from importlib import import_module

import torch

SUBJECTS = ("models", "rng", "schedulers", "tokenizer", "resize", "blocks", "networks", "pipeline")


def main() -> None:
    unknown = set(sys.argv[1:]) - set(SUBJECTS)
    if unknown:
        sys.exit(f"unknown subject '{unknown.pop()}', known are: {', '.join(SUBJECTS)}")
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    for subject in sys.argv[1:] or SUBJECTS:
        print(subject, flush=True)
        import_module(f"golden_{subject}").generate()


if __name__ == "__main__":
    main()
