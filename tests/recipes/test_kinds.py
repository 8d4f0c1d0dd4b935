"""One kind of recipe: what all kinds share, and how they are told apart."""

import copy
import json
import pickle
from dataclasses import fields

import pytest

from skipless.errors import InputError
from skipless.experiments.sine.recipe import SineCell, adapted_recipe
from skipless.models.libraries import LIBRARIES, model_builder
from skipless.recipes import DinoRecipe, ModelConfig, Recipe, SupervisedRecipe, dino, scenes, table1

MADE = {
    "table1": table1("fashion"),
    "paper": table1("paper", "skip", "adamw", data="imagenet/"),
    "scenes": scenes(data="scenes/"),
    "dino": dino("scenes", data="scenes/"),
    "vit_small": dino("vit_small", "skipless", data="imagenet/"),
    "a room's own": adapted_recipe("digits", SineCell("sine", 4, 200.0), base="../base"),
}


@pytest.mark.parametrize("name", MADE)
def test_json_both_ways_whatever_the_kind(name) -> None:
    recipe = MADE[name]
    read = Recipe.from_json(json.loads(json.dumps(recipe.as_json())))
    assert read == recipe
    assert type(read) is type(recipe)
    assert copy.deepcopy(recipe) == pickle.loads(pickle.dumps(recipe)) == recipe


@pytest.mark.parametrize("name", MADE)
def test_the_base_class_makes_the_kind_of_its_parts(name) -> None:
    recipe = MADE[name]
    made = Recipe(**{part.name: getattr(recipe, part.name) for part in fields(recipe)})
    assert made == recipe
    assert type(made) is type(recipe)


@pytest.mark.parametrize("name", MADE)
def test_every_option_is_a_field(name) -> None:
    recipe = MADE[name]
    for option, path in recipe.options.items():
        value = recipe
        for part in path.split("__"):
            value = None if value is None else getattr(value, part)  # raises where there is no such field
        if option in ("lr", "epochs", "batch_size"):
            assert getattr(recipe.with_(**{path: value * 2}), path.split("__")[0]) != getattr(
                recipe, path.split("__")[0]
            )


def test_kinds_are_told_by_their_parts() -> None:
    base = {part.name for part in fields(Recipe)}
    own = [{part.name for part in fields(kind)} - base for kind in (SupervisedRecipe, DinoRecipe)]
    assert all(own)
    assert not own[0] & own[1]
    with pytest.raises(InputError, match="cannot be read"):
        Recipe.from_json({"name": "x"})
    with pytest.raises(TypeError, match="no kind of recipe has only 'name'"):
        Recipe(name="x")  # pyright: ignore[reportCallIssue]


def test_a_model_says_whose_it_is(monkeypatch) -> None:
    with pytest.raises(
        InputError,
        match="no models of library 'keras'; there is timm, torchvision, transformers; to add one: docs/adapters",
    ):
        ModelConfig("vit", library="keras").build_for(8, 1, 10, 0)
    asked = []
    monkeypatch.setitem(LIBRARIES, "other", lambda *given, **named: asked.append((given, named)))
    changed = table1("digits").with_(model__library="other")
    changed.model.build_for(8, 1, 10, 3)
    ((given, named),) = asked
    assert given == ("vit_tiny_patch16_224", 8, 1, 10)
    assert (named["seed"], named["skip"]) == (3, False)
    assert changed.as_json()["model"]["library"] == "other"
    assert "library" not in table1("digits").as_json()["model"]  # as before there was a choice
    assert model_builder("timm") is LIBRARIES["timm"]
