# SPDX-License-Identifier: Apache-2.0
"""Which combinations are held out: fixed by a hash, so the same in every run, preset and version of the code."""

from __future__ import annotations

import hashlib

HELD_OUT_SHARE = 10  # one combination in ten


def is_held_out(combination: tuple[str, ...]) -> bool:
    """Whether no training picture may show this combination, e.g. ("pair", "cat", "red apple")."""
    digest = hashlib.sha256("\x1f".join(combination).encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_SHARE == 0
