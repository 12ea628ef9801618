# SPDX-License-Identifier: Apache-2.0
"""The icons there are, and what they are called in English and Chinese (Unicode CLDR, through emojibase)."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

STYLES = {"fluent": "fluent-emoji-flat", "noto": "noto", "twemoji": "twemoji"}  # the first one needs no naming

CORE = (
    "animal-mammal animal-bird animal-amphibian animal-reptile animal-marine animal-bug plant-flower plant-other "
    "food-fruit food-vegetable food-prepared food-asian food-sweet drink face-smiling face-affection face-tongue "
    "cat-face monkey-face heart sky-weather transport-ground transport-water transport-air sport musical-instrument"
).split()
MORE = (
    "face-hand face-neutral-skeptical face-sleepy face-unwell face-hat face-glasses face-concerned face-negative "
    "face-costume emotion hand-fingers-open hand-fingers-partial hand-single-finger hand-fingers-closed hands "
    "hand-prop body-parts person person-role person-fantasy person-activity person-sport person-resting dishware "
    "place-map place-geographic place-building place-religious place-other hotel event award-medal game arts-crafts "
    "clothing sound music phone computer light-video book-paper money mail writing office lock tool science medical "
    "household other-object flag"
).split()
GROUPS = {"core": frozenset(CORE), "all": frozenset(CORE + MORE)}

ANIMALS = frozenset(name for name in CORE if name.startswith(("animal", "cat-", "monkey-")))
KEYWORD_GROUPS = frozenset(name for name in CORE if name.startswith(("animal", "plant", "food", "transport")))
GENDERED = ("man ", "woman ", "men ", "women ")


@dataclass(frozen=True)
class Concept:
    """One thing with a name. `code` is its code points as in the icon sets, without variation selectors."""

    code: str
    english: str
    chinese: str
    subgroup: str
    english_keywords: tuple[str, ...]  # words that mean this concept and no other
    chinese_keywords: tuple[str, ...]

    @property
    def is_animal(self) -> bool:
        return self.subgroup in ANIMALS


def normal_code(code: str) -> str:
    return code.lower().replace("-fe0f", "")


def load(path: Path) -> object:
    return json.loads(path.read_text())


@cache
def icon_names(packages: Path, style: str) -> dict[str, str]:
    """Code to the icon's name in one set."""
    table = load(packages / "@iconify-json" / STYLES[style] / "chars.json")
    assert isinstance(table, dict)
    return {normal_code(code): name for code, name in table.items()}


@cache
def icon_set(packages: Path, style: str) -> dict:
    icons = load(packages / "@iconify-json" / STYLES[style] / "icons.json")
    assert isinstance(icons, dict)
    return icons


def svg(packages: Path, style: str, code: str) -> str:
    """The icon as an SVG document."""
    return document(icon_set(packages, style), icon_names(packages, style)[code])


def document(icons: dict, name: str) -> str:
    """An icon of a set as an SVG document."""
    while name in icons.get("aliases", {}):
        name = icons["aliases"][name]["parent"]
    icon = icons["icons"][name]
    left, top = icon.get("left", 0), icon.get("top", 0)
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    box = f"{left} {top} {width} {height}"
    return f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box}">{icon["body"]}</svg>'


def is_plain(label: str) -> bool:
    """Leaves out variants by sex (the neutral form stays) and names with a qualifier."""
    return ":" not in label and not label.startswith(GENDERED)


def unique_words(records: list[dict], subgroups: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """For each code the keywords that no other emoji has, neither as keyword nor as name."""
    uses = Counter(word for record in records for word in {*record.get("tags", ()), record["label"]})

    def own(record: dict) -> tuple[str, ...]:
        if subgroups[record["hexcode"]] not in KEYWORD_GROUPS:
            return ()
        return tuple(
            word for word in record.get("tags", ())
            if uses[word] == 1 and len(word.encode()) > 2 and word.replace(" ", "").isalpha() and word != record["label"]
        )

    return {record["hexcode"]: own(record) for record in records}


@cache
def concepts(packages: Path, groups: str) -> tuple[Concept, ...]:
    """The concepts of a selection of GROUPS that every icon set has and both languages name, in CLDR's order."""
    base = packages / "emojibase-data"
    english = load(base / "en" / "data.json")
    chinese = load(base / "zh" / "data.json")
    names = load(base / "meta" / "groups.json")["subgroups"]  # type: ignore[index,call-overload]
    assert isinstance(english, list) and isinstance(chinese, list)
    subgroups = {r["hexcode"]: names.get(str(r.get("subgroup")), "") for r in english}
    english_words = unique_words(english, subgroups)
    chinese_words = unique_words(chinese, subgroups)
    chinese_labels = {r["hexcode"]: r["label"] for r in chinese}
    found: list[Concept] = []
    taken: set[str] = set()
    for record in english:
        key, label = record["hexcode"], record["label"]
        other, code = chinese_labels[key], normal_code(record["hexcode"])
        if subgroups[key] not in GROUPS["all"] or not (is_plain(label) and is_plain(other)):
            continue
        if label in taken or other in taken or any(code not in icon_names(packages, s) for s in STYLES):
            continue
        taken |= {label, other}
        found.append(Concept(code, label, other, subgroups[key], english_words[key], chinese_words[key]))
    return tuple(c for c in found if c.subgroup in GROUPS[groups])
