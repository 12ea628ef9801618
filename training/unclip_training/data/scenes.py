# SPDX-License-Identifier: Apache-2.0
"""What a picture shows, drawn at random but fixed by a seed: one icon, several, two in a relation, or a sign.

A scene is meaning only; `captions` says it in words and `layout` places it. Scenes come in groups of GROUP: an
anchor and variants that differ from it in one thing alone (background, relation, count, colour, style, word), which
are the hard negatives of CLIP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from .icons import Concept
from .split import is_held_out

GROUP = 4

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 40, 45), "orange": (250, 140, 25), "yellow": (252, 215, 50), "green": (45, 165, 70),
    "blue": (40, 100, 225), "purple": (140, 70, 190), "pink": (250, 150, 190), "brown": (130, 80, 45),
    "black": (25, 25, 28), "gray": (135, 140, 145), "white": (255, 255, 255),
}
CHINESE_COLOURS = {
    "red": "红色", "orange": "橙色", "yellow": "黄色", "green": "绿色", "blue": "蓝色", "purple": "紫色",
    "pink": "粉色", "brown": "棕色", "black": "黑色", "gray": "灰色", "white": "白色",
}
COLOUR_NAMES = tuple(COLOURS)
BACKGROUNDS = tuple(name for name in COLOUR_NAMES if name != "white")  # white is the rule and is not said

SHAPES: dict[str, str] = {  # name to Chinese name
    "square": "正方形", "circle": "圆形", "triangle": "三角形", "star": "五角星", "diamond": "菱形",
    "cross": "十字形", "ring": "圆环", "hexagon": "六边形",
}
WORDS = tuple(
    "STOP GO HI YES NO OPEN SALE CAT DOG LOVE HELLO EXIT TAXI CAFE FREE HELP HOT ICE NEW OK PIZZA PLAY RED SHOP STAR "
    "SUN TEA TIME TOP WOW ZOO BUS BEER BOOK COOL FISH FOOD FUN HOME HOTEL KIDS LEFT MENU MILK MOON MUSIC NICE PARK "
    "RAIN ROAD SLOW SNOW SOUP TREE WEST EAST NORTH SOUTH WIND WOOD PEACE HAPPY LUCKY MAGIC PARTY QUIET RIGHT SMILE".split()
)
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
RELATIONS = ("left of", "right of", "above", "below", "inside")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

Kind = Literal["single", "count", "pair", "sign"]


@dataclass(frozen=True)
class Thing:
    """What a layer shows: a concept in a style, a shape or the sign board, perhaps in a colour of its own."""

    kind: Literal["icon", "shape"]
    name: str  # the concept's code or the shape's name
    style: str = ""  # icons only
    colour: str = ""  # shapes always have one

    @property
    def key(self) -> str:
        """What the thing is, whatever its style and colour."""
        return f"{self.kind}:{self.name}"

    @property
    def sprite(self) -> str:
        return f"{self.style}:{self.name}" if self.kind == "icon" else f"shape:{self.name}"


@dataclass(frozen=True)
class Scene:
    kind: Kind
    things: tuple[Thing, ...]  # a pair has two, all others one
    background: str = "white"
    count: int = 1
    relation: str = ""
    word: str = ""  # signs only

    def combinations(self) -> list[tuple[str, ...]]:
        """What this picture puts together, each entry something that may be held out."""
        found: list[tuple[str, ...]] = []
        for thing in self.things:
            if self.background != "white":
                found.append(("background", thing.key, self.background))
            if thing.colour and self.kind != "sign":
                found.append(("colour", thing.key, thing.colour))
        if self.kind == "pair":
            found.append(("pair", *sorted(thing.key for thing in self.things)))
        if self.kind == "count":
            found.append(("count", self.things[0].key, str(self.count)))
        if self.kind == "sign":
            found.append(("word", self.word))
        return found

    @property
    def held_out(self) -> bool:
        return any(is_held_out(combination) for combination in self.combinations())


@dataclass(frozen=True)
class Mix:
    """How often each kind is drawn, and of what."""

    single: float = 0.45
    count: float = 0.12
    pair: float = 0.35
    sign: float = 0.08
    background: float = 0.45  # share of pictures with a background other than white
    tint: float = 0.12  # share of icons drawn in a colour of their own
    other_style: float = 0.25  # share of pictures not in the first style

    def kinds(self) -> tuple[tuple[Kind, ...], tuple[float, ...]]:
        return ("single", "count", "pair", "sign"), (self.single, self.count, self.pair, self.sign)


def has_colour_word(concept: Concept) -> bool:
    return any(word in COLOURS or word == "grey" for word in concept.english.split())


def has_plural(concept: Concept) -> bool:
    """Counted are only things whose English plural is plain: no "grapes", no "glass of milk"."""
    words = concept.english.split()
    return concept.english.isascii() and not words[-1].endswith("s") and "of" not in words and "with" not in words and len(words) <= 2


class SceneSource:
    """Draws scenes; equal arguments give equal scenes, whatever is drawn before."""

    def __init__(self, concepts: tuple[Concept, ...], styles: tuple[str, ...], mix: Mix, seed: int) -> None:
        self.concepts = concepts
        self.styles = styles
        self.mix = mix
        self.seed = seed
        self.countable = tuple(c for c in concepts if has_plural(c))
        self.by_code = {c.code: c for c in concepts}

    def group(self, index: int, held_out: bool = False) -> list[Scene]:
        """GROUP scenes, all of them free of held-out combinations, or each with at least one."""
        rng = Random(f"{self.seed}/{index}/{held_out}")
        anchor = self.draw(rng)
        while anchor.held_out != held_out:
            anchor = self.draw(rng)
        scenes = [anchor]
        for _ in range(50):
            if len(scenes) == GROUP:
                return scenes
            other = self.vary(anchor, rng)
            if other.held_out == held_out and other not in scenes:
                scenes.append(other)
        while len(scenes) < GROUP:  # few variants of this one are allowed
            other = self.draw(rng)
            if other.held_out == held_out:
                scenes.append(other)
        return scenes

    def draw(self, rng: Random) -> Scene:
        kinds, weights = self.mix.kinds()
        kind = rng.choices(kinds, weights)[0]
        background = rng.choice(BACKGROUNDS) if rng.random() < self.mix.background else "white"
        style = self.draw_style(rng)
        if kind == "sign":
            board = Thing("shape", "sign", colour=self.colour(rng, background))
            return Scene("sign", (board,), background, word=rng.choice(WORDS))
        if kind == "count":
            thing = self.draw_thing(rng, style, background, self.countable)
            return Scene("count", (thing,), background, count=rng.randint(2, 5))
        if kind == "single":
            return Scene("single", (self.draw_thing(rng, style, background, self.concepts, shapes=0.1),), background)
        return self.draw_pair(rng, style, background)

    def draw_pair(self, rng: Random, style: str, background: str) -> Scene:
        relation = rng.choice(RELATIONS)
        shapes = 0.3
        first = self.draw_thing(rng, style, background, self.concepts, shapes)
        second = first
        while second.key == first.key and (second.colour == first.colour or second.kind == "icon"):
            second = self.draw_thing(rng, style, background, self.concepts, 1.0 if relation == "inside" else shapes)
        if relation == "inside" and first.colour == second.colour:
            second = replace(second, colour=self.colour(rng, background, first.colour))
        return Scene("pair", (first, second), background, relation=relation)

    def draw_style(self, rng: Random) -> str:
        if len(self.styles) > 1 and rng.random() < self.mix.other_style:
            return rng.choice(self.styles[1:])
        return self.styles[0]

    def draw_thing(
        self, rng: Random, style: str, background: str, concepts: tuple[Concept, ...], shapes: float = 0.2
    ) -> Thing:
        if rng.random() < shapes:
            return Thing("shape", rng.choice(tuple(SHAPES)), colour=self.colour(rng, background))
        concept = rng.choice(concepts)
        tinted = rng.random() < self.mix.tint and not has_colour_word(concept)
        return Thing("icon", concept.code, style, self.colour(rng, background) if tinted else "")

    def colour(self, rng: Random, *avoid: str) -> str:
        return rng.choice([name for name in COLOUR_NAMES if name not in avoid])

    def vary(self, scene: Scene, rng: Random) -> Scene:
        """The scene with one thing about it changed."""
        changes = [self.vary_background]
        if any(thing.colour for thing in scene.things):
            changes.append(self.vary_colour)
        if scene.kind == "pair":
            changes += [self.swap, self.vary_relation, self.swap]
        if scene.kind == "count":
            changes += [self.vary_count, self.vary_count]
        if scene.kind == "sign":
            changes += [self.vary_word, self.vary_word]
        if len(self.styles) > 1 and any(thing.style for thing in scene.things):
            changes.append(self.vary_style)
        return rng.choice(changes)(scene, rng)

    def vary_background(self, scene: Scene, rng: Random) -> Scene:
        taken = {scene.background, *(thing.colour for thing in scene.things)}
        return replace(scene, background=rng.choice([c for c in ("white", *BACKGROUNDS) if c not in taken]))

    def vary_colour(self, scene: Scene, rng: Random) -> Scene:
        at = rng.choice([i for i, thing in enumerate(scene.things) if thing.colour])
        taken = (scene.background, *(thing.colour for thing in scene.things))
        things = list(scene.things)
        things[at] = replace(things[at], colour=self.colour(rng, *taken))
        return replace(scene, things=tuple(things))

    def swap(self, scene: Scene, rng: Random) -> Scene:
        if scene.relation == "inside" and scene.things[0].kind == "icon":
            return self.vary_relation(scene, rng)
        return replace(scene, things=scene.things[::-1])

    def vary_relation(self, scene: Scene, rng: Random) -> Scene:
        allowed = [r for r in RELATIONS if r != scene.relation]
        if scene.things[1].kind == "icon" or scene.things[0].colour == scene.things[1].colour:
            allowed = [r for r in allowed if r != "inside"]
        return replace(scene, relation=rng.choice(allowed))

    def vary_count(self, scene: Scene, rng: Random) -> Scene:
        return replace(scene, count=rng.choice([n for n in (2, 3, 4, 5) if n != scene.count]))

    def vary_word(self, scene: Scene, rng: Random) -> Scene:
        return replace(scene, word=rng.choice([word for word in WORDS if word != scene.word]))

    def vary_style(self, scene: Scene, rng: Random) -> Scene:
        old = next(thing.style for thing in scene.things if thing.style)
        new = rng.choice([style for style in self.styles if style != old])
        return replace(scene, things=tuple(replace(t, style=new) if t.style else t for t in scene.things))


@dataclass(frozen=True)
class Layer:
    """A sprite on the canvas: centre and size as fractions of its side; `tint` empty keeps its own colours."""

    sprite: str
    x: float
    y: float
    size: float
    tint: str = ""


GRIDS = {
    2: ((0.27, 0.5), (0.73, 0.5)),
    3: ((0.5, 0.27), (0.27, 0.73), (0.73, 0.73)),
    4: ((0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73)),
    5: ((0.22, 0.22), (0.78, 0.22), (0.5, 0.5), (0.22, 0.78), (0.78, 0.78)),
}
PLACES = {
    "left of": ((0.27, 0.5), (0.73, 0.5)), "right of": ((0.73, 0.5), (0.27, 0.5)),
    "above": ((0.5, 0.27), (0.5, 0.73)), "below": ((0.5, 0.73), (0.5, 0.27)),
}
MAX_LAYERS = 5


def layout(scene: Scene, rng: Random) -> list[Layer]:
    """Places the scene, back to front, with a little jitter."""

    def place(thing: Thing, x: float, y: float, size: float, jitter: float = 0.02) -> Layer:
        return Layer(thing.sprite, x + rng.uniform(-jitter, jitter), y + rng.uniform(-jitter, jitter), size, thing.colour)

    first, second = scene.things[0], scene.things[-1]
    if scene.kind == "single":
        return [place(first, 0.5, 0.5, rng.uniform(0.78, 0.94), 0.03)]
    if scene.kind == "count":
        size = rng.uniform(0.38, 0.44) if scene.count < 5 else rng.uniform(0.3, 0.36)
        return [place(first, x, y, size) for x, y in GRIDS[scene.count]]
    if scene.kind == "sign":
        board = place(first, 0.5, 0.5, rng.uniform(0.88, 0.96))
        dark = sum(COLOURS[first.colour]) > 480
        return [board, Layer(f"word:{scene.word}", board.x, board.y, board.size * 0.8, "black" if dark else "white")]
    if scene.relation == "inside":
        outer = place(second, 0.5, 0.5, rng.uniform(0.88, 0.96))
        return [outer, Layer(first.sprite, outer.x, outer.y, outer.size * rng.uniform(0.42, 0.5), first.colour)]
    size = rng.uniform(0.4, 0.46)
    (x0, y0), (x1, y1) = PLACES[scene.relation]
    return [place(first, x0, y0, size), place(second, x1, y1, size)]
