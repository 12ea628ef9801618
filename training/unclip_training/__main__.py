# SPDX-License-Identifier: Apache-2.0
"""python -m unclip_training COMMAND ...: imports little itself, as every process of a pool imports it again."""

from __future__ import annotations

import importlib
import sys

COMMANDS = {
    "train": "unclip_training.train", "evaluate": "unclip_training.evaluation.evaluate",
    "convert": "unclip_training.convert.command",
    "gallery": "unclip_training.gallery", "fifty-pictures": "unclip_training.examples.fifty_pictures",
    "before-and-after": "unclip_training.examples.before_and_after",
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(f"usage: python -m unclip_training {'|'.join(COMMANDS)} ...")
    importlib.import_module(COMMANDS[sys.argv.pop(1)]).main()
