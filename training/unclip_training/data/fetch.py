# SPDX-License-Identifier: Apache-2.0
"""Fetches the icon sets, names and font: npm packages, pinned and checked by package-lock.json."""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

LOCK_FILES = ("package.json", "package-lock.json")
USED = (
    ".package-lock.json", "@iconify-json/*/icons.json", "@iconify-json/*/chars.json", "emojibase-data/en/data.json",
    "emojibase-data/zh/data.json", "emojibase-data/meta/groups.json", "dejavu-fonts-ttf/ttf/DejaVuSans-Bold.ttf",
)
TRAINING = Path(__file__).resolve().parents[2]


def cache_folder() -> Path:
    """Where everything that can be made again is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "unclip" / "training-data"


def fetch(source: Path = TRAINING) -> Path:
    """The node_modules folder with the packages of a folder's package-lock.json; fetched when it is missing or another
    version.

    UNCLIP_TRAINING_PACKAGES names a node_modules folder that is taken as it is, for machines without a network.
    """
    given = os.environ.get("UNCLIP_TRAINING_PACKAGES")
    if given:
        return Path(given)
    folder = cache_folder() / ("npm" if source == TRAINING else f"npm-{source.name}")
    folder.mkdir(parents=True, exist_ok=True)
    installed = folder / "installed.json"
    if not (installed.exists() and filecmp.cmp(installed, source / "package-lock.json", shallow=False)):
        for name in LOCK_FILES:
            shutil.copyfile(source / name, folder / name)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=folder, check=True)
        shutil.copyfile(source / "package-lock.json", installed)
    return folder / "node_modules"


def bundle(path: Path) -> None:
    """Packs the files that training reads, for UNCLIP_TRAINING_PACKAGES on another machine."""
    packages = fetch()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:xz") as tar:
        for pattern in USED:
            for file in sorted(packages.glob(pattern)):
                tar.add(file, file.relative_to(packages))
