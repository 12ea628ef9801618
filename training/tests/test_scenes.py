# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from random import Random

import pytest
from unclip_training.data.captions import Captions, plural, with_article
from unclip_training.data.scenes import GROUP, RELATIONS, Mix, Scene, SceneSource, Thing, layout
from unclip_training.data.split import is_held_out
from unclip_training.data.table import World, label, ordered

GROUPS = 300


def source(world: World, seed: int = 7) -> SceneSource:
    return world.source(seed)


def test_a_group_depends_on_seed_and_index_alone(world: World) -> None:
    forwards = [source(world).group(index) for index in range(20)]
    drawn = source(world)
    backwards = [drawn.group(index) for index in reversed(range(20))][::-1]
    assert forwards == backwards
    assert forwards != [source(world, seed=8).group(index) for index in range(20)]


def test_captions_and_layouts_follow_the_generator(world: World) -> None:
    speaker = world.captions()
    scenes = [scene for index in range(50) for scene in source(world).group(index)]
    for language in ("en", "zh"):
        once = [speaker.say(scene, language, Random(at)) for at, scene in enumerate(scenes)]
        again = [speaker.say(scene, language, Random(at)) for at, scene in enumerate(scenes)]
        assert once == again and all(once)
    assert [layout(s, Random(3)) for s in scenes] == [layout(s, Random(3)) for s in scenes]


def test_training_never_shows_a_held_out_combination(world: World) -> None:
    drawn = source(world)
    seen = {c for index in range(GROUPS) for scene in drawn.group(index) for c in scene.combinations()}
    kept = {c for index in range(GROUPS) for scene in drawn.group(index, held_out=True) for c in scene.combinations()}
    assert not any(is_held_out(combination) for combination in seen)
    assert any(is_held_out(combination) for combination in kept)
    for index in range(GROUPS):
        assert all(scene.held_out for scene in drawn.group(index, held_out=True))


def test_a_pair_is_held_out_in_either_order(world: World) -> None:
    cat, fox = Thing("icon", "1f408", "fluent"), Thing("icon", "1f98a", "noto")
    assert Scene("pair", (cat, fox), relation="above").combinations() == Scene("pair", (fox, cat), relation="left of").combinations()


def test_about_a_tenth_is_held_out() -> None:
    share = sum(is_held_out(("pair", str(i), str(j))) for i in range(60) for j in range(60)) / 3600
    assert 0.08 < share < 0.12


def test_variants_differ_from_their_anchor(world: World) -> None:
    for index in range(GROUPS):
        anchor, *others = source(world).group(index)
        assert len(others) == GROUP - 1
        assert all(other != anchor for other in others)


def test_relations_are_said_and_placed_alike(world: World) -> None:
    cat, pizza = Thing("icon", "1f408", "fluent"), Thing("icon", "1f355", "fluent")
    ring = Thing("shape", "ring", colour="red")
    for relation in RELATIONS:
        scene = Scene("pair", (cat, ring if relation == "inside" else pizza), relation=relation)
        layers = {layer.sprite: layer for layer in layout(scene, Random(1))}
        a, b = layers[scene.things[0].sprite], layers[scene.things[1].sprite]
        expected = {
            "left of": a.x < b.x - 0.2, "right of": a.x > b.x + 0.2, "above": a.y < b.y - 0.2, "below": a.y > b.y + 0.2,
            "inside": a.size < b.size and abs(a.x - b.x) < 0.05,
        }
        assert expected[relation], relation


def test_labels_put_things_in_the_order_in_which_they_lie(world: World) -> None:
    cat, pizza = Thing("icon", "1f408", "fluent"), Thing("icon", "1f355", "fluent")
    assert ordered(Scene("pair", (cat, pizza), relation="right of")) == (pizza, cat, 1)
    assert ordered(Scene("pair", (cat, pizza), relation="above")) == (cat, pizza, 2)
    things = {key: at for at, key in enumerate(world.things())}
    assert label(Scene("count", (cat,), "red", count=3), things, world.styles)[:6] == [1, 0, len(things), 0, 3, 0]


def test_a_style_is_named_unless_it_is_the_plain_one(world: World) -> None:
    speaker = world.captions()
    noto = Scene("single", (Thing("icon", "1f408", "noto"),))
    assert "noto" in speaker.say(noto, "en", Random(0)) and "noto" in speaker.say(noto, "zh", Random(0))
    assert "fluent" not in speaker.say(Scene("single", (Thing("icon", "1f408", "fluent"),)), "en", Random(0))


def test_caption_of_a_relation(concepts: tuple) -> None:
    speaker = Captions(concepts, "fluent")
    scene = Scene("pair", (Thing("icon", "1f408", "fluent"), Thing("icon", "1f34e", "fluent")), "green", relation="left of")
    said = {speaker.say(scene, "en", Random(at), keywords=0) for at in range(40)}
    assert "a cat to the left of a red apple on a green background" in said
    said = {speaker.say(scene, "zh", Random(at), keywords=0) for at in range(40)}
    assert "绿色背景上的猫在红苹果的左边" in said


@pytest.mark.parametrize(("one", "many"), [("cat", "cats"), ("fox", "foxes"), ("cherry", "cherries"), ("goose", "geese")])
def test_plural(one: str, many: str) -> None:
    assert plural(one) == many


@pytest.mark.parametrize(
    ("noun", "said"), [("apple", "an apple"), ("unicorn", "a unicorn"), ("grapes", "grapes"), ("glass", "a glass")]
)
def test_article(noun: str, said: str) -> None:
    assert with_article(noun) == said


def test_a_mix_can_leave_kinds_out(concepts: tuple) -> None:
    drawn = SceneSource(concepts, ("fluent",), Mix(single=0, count=0, pair=0, sign=1), seed=1)
    assert {scene.kind for index in range(20) for scene in drawn.group(index)} == {"sign"}
