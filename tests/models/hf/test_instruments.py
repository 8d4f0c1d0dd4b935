"""What is written against blocks and views, on Hugging Face's models."""

import pytest
import torch
from reference.hf_models import FAMILIES

from skipless.conditioning import measure_conditioning
from skipless.errors import InputError
from skipless.evaluators.features.extraction import FeatureConfig, features
from skipless.models import remove_skips_
from skipless.models.token_graying import insert_token_graying_, remove_token_graying_
from skipless.nn import TokenGraying

VISION = [name for name, family in FAMILIES.items() if not family.text]


@pytest.mark.parametrize("name", VISION)
def test_features_are_what_the_model_computes(name):
    model = remove_skips_(FAMILIES[name].build())
    images = FAMILIES[name].inputs()
    found = features(model, images, FeatureConfig(blocks=(0, -1), kinds=("tokens", "q", "k", "v")))
    with torch.no_grad():
        base = model if name.startswith("dinov3") else model.base_model
        expected = base(images).last_hidden_state
    last = found[1, "tokens"]
    torch.testing.assert_close(torch.cat((last.prefix, last.patches), 1), expected)
    assert last.grid == (2, 2)
    assert found[0, "q"].patches.shape == (2, 4, 16)


@pytest.mark.parametrize("name", VISION)
def test_features_of_images_of_another_size(name):
    model = FAMILIES[name].build()
    assert features(model, torch.zeros(1, 3, 12, 16))[1, "tokens"].grid == (3, 4)


@pytest.mark.parametrize("name", VISION)
def test_token_graying_acts_on_what_enters_the_first_block(name):
    model, images = FAMILIES[name].build(), FAMILIES[name].inputs()
    keys, before = list(model.state_dict()), model(images)[0]
    insert_token_graying_(model, TokenGraying(0.5, "svd"))
    assert list(model.state_dict()) == keys
    assert not torch.allclose(model(images)[0], before)
    remove_token_graying_(model)
    assert torch.equal(model(images)[0], before)


def test_measured_conditioning_of_a_vit():
    model = remove_skips_(FAMILIES["vit"].build())
    report = measure_conditioning(model, FAMILIES["vit"].inputs()[:1], parts=["attn", "mlp", "maps"])
    assert report.blocks[0].heads is not None
    assert report.blocks[0].attn["skipless"].kappa.value > 1


def test_language_models_are_not_measured_on_images_or_grayed():
    model = FAMILIES["llama"].build()
    with pytest.raises(InputError):
        insert_token_graying_(model)
    with pytest.raises(InputError):
        features(model, torch.zeros(1, 3, 8, 8))
