"""Makes the goldens: all of them, or those of the subjects named as arguments."""

from __future__ import annotations

import argparse
from importlib import import_module

import torch

# In order: the models come first, their weights are needed by the networks.
SUBJECTS = ("models", "rng", "schedulers", "samplers", "repaint", "tokenizer", "resize", "processor", "blocks", "networks", "ar_prior", "pipeline", "variation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"any of: {', '.join(SUBJECTS)}")
    subjects = parser.parse_args().subjects
    if unknown := set(subjects) - set(SUBJECTS):
        parser.error(f"unknown subject '{min(unknown)}', known are: {', '.join(SUBJECTS)}")
    # One thread: the order of sums, and so the last bit, depends on their number.
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    for subject in subjects or SUBJECTS:
        print(subject, flush=True)
        import_module(f"golden_{subject}").generate()


if __name__ == "__main__":
    main()
