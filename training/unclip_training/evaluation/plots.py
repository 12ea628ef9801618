# SPDX-License-Identifier: Apache-2.0
"""Plots of sweeps: what a setting does to recognition, to the match with the caption, and to diversity."""

from __future__ import annotations

import importlib.util
from pathlib import Path

LABELS = {"guidance": "guidance scale of the decoder", "steps": "steps of prior and decoder"}
SHARES = {"top1": "top-1", "top5": "top-5", "nearest_top1": "top-1 (nearest)", "nearest_top5": "top-5 (nearest)"}
OTHERS = {"clip_cosine": "cosine of picture and caption", "diversity": "diversity among seeds"}
MARKERS = "osD^"


def available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def draw(path: Path, name: str, rows: list[dict]) -> None:
    """Shares on the left, cosines on the right, over the values of setting `name`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [("recognised, %", SHARES, 100), ("second CLIP", OTHERS, 1)]
    panels = [(label, {k: v for k, v in lines.items() if rows[0].get(k) is not None}, by) for label, lines, by in panels]
    panels = [panel for panel in panels if panel[1]]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.4), layout="constrained", squeeze=False)
    for axis, (label, lines, factor) in zip(axes[0], panels, strict=True):
        for marker, (key, title) in zip(MARKERS, lines.items(), strict=False):
            axis.plot([row[name] for row in rows], [factor * row[key] for row in rows], marker=marker, label=title)
        axis.set_xlabel(LABELS[name])
        axis.set_ylabel(label)
        if factor == 100:
            axis.set_ylim(0, 104)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
