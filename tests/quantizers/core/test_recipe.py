"""Recipes: registry, validation, round trip."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tvm_ahcq.errors import RecipeError
from tvm_ahcq.quantizers.core.recipe import SITE_KINDS, Recipe, recipe, recipe_names


def test_default_recipe_is_ahcq_at_four_bits():
    default = recipe()
    assert default == recipe("ahcq", 4)
    assert (default.bits_weights, default.bits_activations, default.groups) == (4, 4, 4)
    kinds = [default.quantizer_for(kind) for kind in SITE_KINDS]
    assert kinds == ["cag", "hluq", "row_relative", "cag", "uniform", "uniform"]


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("bits", [4, 5, 6, 8])
def test_every_recipe_round_trips_through_json(name, bits):
    made = recipe(name, bits)
    assert made.name == name
    assert Recipe.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_our_recipes_take_pixels_at_eight_bits_whatever_the_rest_has_and_published_ones_in_float():
    site, weight = "image_encoder.patch_embed.proj.input", "image_encoder.patch_embed.proj.weight"
    for name in recipe_names():
        made = recipe(name, 6)
        assert made.pixels == (8 if name.startswith("ahcq") else None)
        assert made.bits_of_site(site, pixels=True) == made.bits_of_weight(weight, pixels=True) == (made.pixels or 6)
        assert made.bits_of_weight("image_encoder.blocks.0.attn.proj.weight") == 6
    assert replace(recipe(), pixels=4, raised={site: 6}).bits_of_site(site, pixels=True) == 6
    assert replace(recipe(), raised={site: 6}).bits_of_site(site, pixels=True) == 8


def test_a_recipe_that_was_saved_before_pixels_were_a_choice_leaves_them_in_float():
    saved = {name: value for name, value in recipe().to_dict().items() if name != "pixels"}
    assert Recipe.from_dict(saved).pixels is None


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(RecipeError, match=r"known recipes are .*ahcq"):
        recipe("best")


@pytest.mark.parametrize("bits", [3, 7, 16, 4.0, "4", True, None])
def test_other_bits_are_refused(bits):
    with pytest.raises(RecipeError, match="4, 5, 6, 8"):
        recipe("ahcq", bits)


@pytest.mark.parametrize(
    "change",
    [
        {"groups": 0},
        {"groups": True},
        {"norm": "lnq"},
        {"softmax": "cag"},
        {"raised": {"x": 3}},
        {"rounding": "up"},
        {"weight_range": "x"},
        {"other": 1},
        {"pixels": 7},
    ],
)
def test_options_out_of_range_are_refused(change):
    with pytest.raises(RecipeError):
        Recipe.from_dict(recipe().to_dict() | change)


def test_unknown_site_kind_is_refused():
    with pytest.raises(RecipeError, match="site kind"):
        recipe().quantizer_for("groups")
