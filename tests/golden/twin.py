"""The PyTorch twins of what diffusers does not have: training/'s own."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "training"))

from unclip_training.context import Text  # noqa: E402
from unclip_training.evaluation import priors  # noqa: E402

__all__ = ["Text", "priors"]
