"""Checks that golden-synth (argument 1) and synth.py write the same bytes for every model and dtype."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from golden_models import MODELS
from synth import synth_model


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest() for path in files}


def main(program: str) -> None:
    for source in sorted(MODELS.iterdir()):
        for dtype in ("f32", "f16", "bf16"):
            with TemporaryDirectory() as scratch:
                ours, theirs = Path(scratch) / "python", Path(scratch) / "c"
                synth_model(source, ours, dtype)
                subprocess.run([program, source, theirs, dtype], check=True)
                if digests(ours) != digests(theirs):
                    sys.exit(f"synth.py and synth.c differ on '{source.name}' in {dtype}")
    print("synth.py and synth.c agree to the bit")


if __name__ == "__main__":
    main(sys.argv[1])
