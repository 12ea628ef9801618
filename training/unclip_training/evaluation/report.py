# SPDX-License-Identifier: Apache-2.0
"""The report: a flat summary of all figures, and tables in Markdown, of one model or of two side by side.

A figure that was not taken is null in the summary, and `missing` says why, by its name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

SHARES = {  # name in the summary: set, figure
    "seen_top1": ("seen", "top1"), "seen_top5": ("seen", "top5"),
    "held_out_top1": ("held_out", "top1"), "held_out_top5": ("held_out", "top5"),
    "relations": ("relations", "relation"), "held_out_relations": ("held_out_pairs", "relation"),
    "counts": ("counts", "count"), "colours": ("colours", "colour"), "text": ("text", "text"),
    "held_out_text": ("held_out_text", "text"),
}
GOALS = {
    "seen_top1.en": "≥ 90 %", "held_out_top1.en": "≥ 60 %", "relations.en": "≥ 70 %",
    "language_gap_points.seen_top1": "≤ 3",
}
TITLES = {
    "seen_top1": "seen captions, top-1", "seen_top5": "seen captions, top-5", "held_out_top1": "held-out combinations, top-1",
    "held_out_top5": "held-out combinations, top-5", "relations": "relations", "held_out_relations": "relations, held-out pairs",
    "counts": "counts", "colours": "colours", "text": "words on signs", "held_out_text": "words on signs, held-out",
}
MARKS = ("top1", "top5", "nearest_top1", "nearest_top5", "border_colour", "clip_retrieval", "same_recognition")
COLUMNS = ("en", "zh", "ceiling")
NO_SET = "set not asked for"
NO_JUDGES = "--quick asks no judges"


def summary(report: dict) -> dict:
    """Of a report with `sets`, `kid`, `priors`, `upsamplers` and `sweeps`, each of which may be a reason instead."""
    sets, missing = report["sets"], {}
    found: dict = {"prompts": max((each["prompts"] for each in sets.values()), default=0)}
    for name, (kind, figure) in SHARES.items():
        found[name] = {key: sets.get(kind, {}).get(key, {}).get(figure) for key in COLUMNS}
        if found[name]["en"] is None:
            found[name] = None
            missing[name] = NO_SET if kind not in sets else NO_JUDGES
    found["by_category"] = categories(sets) or None
    found["language_gap_points"] = gaps(found) or None
    found["agreement"] = agreement(sets)
    found["diversity"] = sets.get("seen", {}).get("diversity")
    for name in ("by_category", "language_gap_points", "agreement", "diversity"):
        if found[name] is None:
            missing[name] = NO_JUDGES if report.get("quick") else NO_SET if name != "diversity" else "--seeds 1 or no set seen"
    for name in ("kid", "priors", "upsamplers", "sweeps"):
        found[name] = taken(report[name], name, missing)
    return found | {"missing": missing}


def taken(part: object, path: str, missing: dict[str, str]) -> object:
    """The part with null for every reason in it, and the reasons moved to `missing`."""
    if isinstance(part, str):
        missing[path] = part
        return None
    if isinstance(part, dict):
        return {name: taken(value, f"{path}.{name}", missing) for name, value in part.items()}
    return part


def categories(sets: dict) -> dict:
    """Top-1 of the seen set by category, in both languages."""
    each = {key: sets.get("seen", {}).get(key, {}).get("top1_by_category", {}) for key in ("en", "zh")}
    return {name: {key: each[key][name] for key in each} for name in each["en"]}


def gaps(found: dict) -> dict:
    """English less Chinese in percentage points, of each share and on average."""
    each = {name: round(100 * (found[name]["en"] - found[name]["zh"]), 2) for name in SHARES if found[name]}
    return each | {"mean": round(sum(each.values()) / len(each), 2)} if each else {}


def agreement(sets: dict) -> dict | None:
    """Means over the sets."""
    each = [one["agreement"] for one in sets.values() if "agreement" in one]
    return {name: round(sum(one[name] for one in each) / len(each), 4) for name in each[0]} if each else None


# Tables


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def number(value: object, share: bool = False) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    return f"{100 * value:.1f} %" if share else f"{value:g}"


def is_share(path: str) -> bool:
    """Whether a figure, by its dotted name, is said in per cent."""
    first, last = path.split(".")[0], path.split(".")[-1]
    return first in (*SHARES, "by_category") or last in MARKS


def flat(part: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every figure of a summary with its dotted name."""
    if isinstance(part, dict):
        for name, value in part.items():
            if name != "missing":
                yield from flat(value, f"{path}.{name}" if path else name)
    elif isinstance(part, list):
        for row in part:
            (key, at), *others = row.items()
            for name, value in others:
                yield f"{path}.{at:g}.{name}", value
    else:
        yield path, part


def recognition_table(found: dict) -> str:
    rows = [[TITLES[name], *(number((found[name] or {}).get(key), True) for key in COLUMNS),
             number((found["language_gap_points"] or {}).get(name)), GOALS.get(f"{name}.en", "")] for name in SHARES]
    return table(["what the judges recognise", "English", "Chinese", "real pictures", "gap, points", "goal"], rows)


def grid(first: str, entries: dict[str, dict]) -> str:
    """One row an entry, one column a figure; an entry without figures has dashes."""
    each = {name: entry or {} for name, entry in entries.items()}
    columns = list(dict.fromkeys(column for entry in each.values() for column in entry))
    rows = [[name, *(number(entry.get(column), is_share(column)) for column in columns)] for name, entry in each.items()]
    return table([first, *columns], rows)


def sections(found: dict) -> Iterator[str]:
    margin = 98 / max(1, found["prompts"]) ** 0.5
    yield f"{found['prompts']} prompts a set: a share is good to ±{margin:.0f} points at most (95 %).\n"
    yield recognition_table(found)
    whole = {f"agreement, {name}": value for name, value in (found["agreement"] or {}).items()}
    whole |= {"diversity among seeds": found["diversity"]} | {f"KID at {size}": v for size, v in (found["kid"] or {}).items()}
    yield table(["of all pictures", "figure"], [[name, number(value)] for name, value in whole.items()])
    if found["by_category"]:
        shown = {name: {key: number(value, True) for key, value in each.items()} for name, each in found["by_category"].items()}
        yield grid("seen captions, top-1 by category", shown)
    if found["priors"]:
        kinds = {k: v for k, v in found["priors"].items() if k not in ("prompts", "order")}
        yield grid("prior", kinds)
        said = ", ".join(f"by {name}: {number(holds)}" for name, holds in found["priors"]["order"].items())
        yield f"Does the paper's order hold (diffusion ≥ autoregressive ≥ none)? {said}.\n"
    for size, part in (found["upsamplers"] or {}).items():
        if part:
            yield grid(f"{int(size) // 4} → {size}", {k: v for k, v in part.items() if k != "pictures"})
    for name, rows in (found["sweeps"] or {}).items():
        if rows:
            yield grid(name, {f"{row[name]:g}": {k: v for k, v in row.items() if k != name} for row in rows})
    if found["missing"]:
        yield "Not measured:\n\n" + "\n".join(f"- {name}: {why}" for name, why in found["missing"].items()) + "\n"


def markdown(report: dict) -> str:
    return f"# {report['model']}\n\n" + "\n".join(sections(report["summary"]))


def change(old: object, new: object, share: bool) -> str:
    if isinstance(old, bool) or not isinstance(old, (int, float)) or not isinstance(new, (int, float)):
        return ""
    return f"{100 * (new - old):+.1f} points" if share else f"{new - old:+.4g}"


def read(path: Path) -> dict:
    """A report that was written before. ValueError: it is none."""
    try:
        found = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is not JSON: {error}") from None
    if not (isinstance(found, dict) and isinstance(found.get("model"), str) and isinstance(found.get("summary"), dict)):
        raise ValueError(f"'{path}' is no report of --json")
    try:
        list(flat(found["summary"]))
    except (AttributeError, TypeError, ValueError, RecursionError):
        raise ValueError(f"'{path}' is no report of --json: its summary is damaged") from None
    return found


def differences(before: dict, after: dict) -> list[str]:
    """What two reports were not measured alike with."""
    found = []
    for name in ("preset", "judges", "count", "seeds"):
        one, other = before.get(name), after.get(name)
        if one != other:
            found.append(f"{name}: {json.dumps(one)} before, {json.dumps(other)} after")
    return found


def side_by_side(before: dict, after: dict) -> str:
    """Two reports, figure by figure."""
    old, new = dict(flat(before["summary"])), dict(flat(after["summary"]))
    rows = []
    for path in dict.fromkeys([*new, *old]):
        share = is_share(path)
        one, other = old.get(path), new.get(path)
        rows.append([path, number(one, share), number(other, share), change(one, other, share), GOALS.get(path, "")])
    return (
        f"# {before['model']} and {after['model']}\n\n"
        + "".join(f"Beware, not measured alike: {difference}.\n\n" for difference in differences(before, after))
        + table(["figure", f"before: {before['model']}", f"after: {after['model']}", "change", "goal"], rows)
    )
