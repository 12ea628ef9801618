# SPDX-License-Identifier: Apache-2.0
"""Says a scene in English or Chinese, in one of several ways."""

from __future__ import annotations

from random import Random

from .icons import Concept
from .scenes import CHINESE_COLOURS, NUMBERS, SHAPES, Scene, Thing

LANGUAGES = ("en", "zh")

ENGLISH_RELATIONS = {
    "left of": ("{a} to the left of {b}", "{a} left of {b}", "{a} on the left and {b} on the right"),
    "right of": ("{a} to the right of {b}", "{a} right of {b}", "{b} on the left and {a} on the right"),
    "above": ("{a} above {b}", "{a} on top of {b}", "{a} over {b}"),
    "below": ("{a} below {b}", "{a} under {b}", "{a} beneath {b}"),
    "inside": ("{a} inside {b}", "{a} in {b}"),
}
CHINESE_RELATIONS = {
    "left of": ("{a}在{b}的左边", "{b}左边的{a}", "左边是{a}，右边是{b}"),
    "right of": ("{a}在{b}的右边", "{b}右边的{a}", "左边是{b}，右边是{a}"),
    "above": ("{a}在{b}的上面", "{b}上面的{a}", "上面是{a}，下面是{b}"),
    "below": ("{a}在{b}的下面", "{b}下面的{a}", "上面是{b}，下面是{a}"),
    "inside": ("{a}在{b}里面", "{b}里的{a}"),
}
CHINESE_NUMBERS = {2: "两", 3: "三", 4: "四", 5: "五"}
UNCOUNTED = frozenset("bread rice bacon popcorn butter salt ice fog spaghetti sushi luggage tennis bowling".split())


def plural(noun: str) -> str:
    if noun.endswith(("s", "sh", "ch", "x", "z")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    for one, many in (("mouse", "mice"), ("goose", "geese"), ("wolf", "wolves"), ("leaf", "leaves"), ("loaf", "loaves")):
        if noun.endswith(one):
            return noun[: -len(one)] + many
    return noun + "s"


def with_article(noun: str) -> str:
    last = noun.split()[-1]
    if last in UNCOUNTED or (last.endswith("s") and not last.endswith(("ss", "us", "is"))):
        return noun
    return f"{'an' if noun[0].lower() in 'aeiou' and not noun.startswith(('uni', 'ewe')) else 'a'} {noun}"


class Captions:
    """Captions for the scenes of one set of concepts."""

    def __init__(self, concepts: tuple[Concept, ...], plain_style: str) -> None:
        self.concepts = {concept.code: concept for concept in concepts}
        self.plain_style = plain_style

    def say(self, scene: Scene, language: str, rng: Random, keywords: float = 0.06) -> str:
        """One of the ways to say it; `keywords` is how often a thing goes by a keyword instead of its name."""
        return self.english(scene, rng, keywords) if language == "en" else self.chinese(scene, rng, keywords)

    def name(self, thing: Thing, language: str, rng: Random, keywords: float) -> str:
        if thing.kind == "shape":
            return thing.name if language == "en" else SHAPES[thing.name]
        concept = self.concepts[thing.name]
        words = concept.english_keywords if language == "en" else concept.chinese_keywords
        if words and rng.random() < keywords:
            return rng.choice(words)
        return concept.english if language == "en" else concept.chinese

    def style(self, scene: Scene) -> str:
        return next((t.style for t in scene.things if t.style and t.style != self.plain_style), "")

    def english(self, scene: Scene, rng: Random, keywords: float) -> str:
        nouns = [f"{t.colour} {self.name(t, 'en', rng, keywords)}".strip() for t in scene.things if scene.kind != "sign"]
        if scene.kind == "sign":
            board = with_article(f"{scene.things[0].colour} sign")
            word = rng.choice((scene.word, scene.word.lower(), f'"{scene.word}"'))
            text = rng.choice(("{board} that says {word}", "{board} with the word {word}", "{board} saying {word}"))
            text = text.format(board=board, word=word)
        elif scene.kind == "count":
            text = f"{NUMBERS[scene.count]} {plural(nouns[0])}"
        elif scene.kind == "pair":
            a, b = (with_article(noun) for noun in nouns)
            text = rng.choice(ENGLISH_RELATIONS[scene.relation]).format(a=a, b=b)
        else:
            one = with_article(nouns[0])
            text = rng.choice((one, one, one, nouns[0], f"an emoji of {one}", f"a picture of {one}"))
        if scene.background != "white":
            text += rng.choice((" on {1} background", " on {1} background", ", {0} background")).format(
                scene.background, with_article(scene.background)
            )
        if style := self.style(scene):
            text += rng.choice((", {0} style", " in {0} style")).format(style)
        return text

    def chinese(self, scene: Scene, rng: Random, keywords: float) -> str:
        things = [(CHINESE_COLOURS.get(t.colour, ""), t) for t in scene.things]
        nouns = [
            (colour + "的" if colour else "") + self.name(t, "zh", rng, keywords)
            for colour, t in things if scene.kind != "sign"
        ]
        if scene.kind == "sign":
            word = rng.choice((scene.word, scene.word, f"“{scene.word}”"))
            text = rng.choice(("写着{word}的{colour}牌子", "{colour}的牌子，写着{word}")).format(word=word, colour=things[0][0])
        elif scene.kind == "count":
            text = f"{CHINESE_NUMBERS[scene.count]}{self.measure(scene.things[0])}{nouns[0]}"
        elif scene.kind == "pair":
            text = rng.choice(CHINESE_RELATIONS[scene.relation]).format(a=nouns[0], b=nouns[1])
        else:
            text = rng.choice(("{0}", "{0}", "{0}", "一{1}{0}", "{0}的表情符号")).format(nouns[0], self.measure(scene.things[0]))
        if scene.background != "white":
            background = CHINESE_COLOURS[scene.background]
            text = rng.choice(("{0}背景上的{1}", "{1}，{0}背景")).format(background, text)
        if style := self.style(scene):
            text += rng.choice(("，{0}风格", "，{0}样式")).format(style)
        return text

    def measure(self, thing: Thing) -> str:
        return "只" if thing.kind == "icon" and self.concepts[thing.name].is_animal else "个"
