"""Models by name: what a run folder or a timm name gives."""

import pytest
import torch

from skipless.errors import InputError
from skipless.recipes import open_model, run, table1
from skipless.training import save_weights


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "s1"
    recipe = table1("digits", "skipless", "adamw").with_(fit__epochs=1, fit__progress="none")
    run(recipe, out)
    return out


def test_a_run_gives_its_trained_and_its_first_weights(digits_run) -> None:
    trained, first = open_model(str(digits_run)), open_model(str(digits_run), untrained=True)
    assert (trained.name, trained.trained, first.trained) == ("s1", True, False)
    assert trained.statistics is not None
    assert [len(part) for part in trained.statistics] == [1, 1]
    fresh = table1("digits", "skipless", "adamw").model.build_for(8, 1, 10, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), fresh.parameters(), strict=True))
    assert not torch.equal(trained.model.head.weight, first.model.head.weight)
    assert not trained.model.training


def test_a_run_takes_other_weights_of_its_model(digits_run, tmp_path) -> None:
    first = open_model(str(digits_run), untrained=True).model
    file = save_weights(first, tmp_path / "first.safetensors")
    again = open_model(str(digits_run), weights=file).model
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    with pytest.raises(InputError, match="holds no plain ViT"):
        open_model(str(digits_run), weights=save_weights(torch.nn.Linear(2, 2), tmp_path / "other.safetensors"))


def test_timm_names() -> None:
    source = open_model("vit_tiny_patch16_224", seed=3)
    assert (source.name, source.trained, source.statistics) == ("vit_tiny_patch16_224", False, None)
    assert torch.equal(source.model.head.weight, open_model("vit_tiny_patch16_224", seed=3).model.head.weight)
    assert open_model("skipless_vit_tiny_patch16_224").model.blocks[0].attn_skip is False
    with pytest.raises(InputError, match="did you mean"):
        open_model("vit_tiny_patch16_225")
    with pytest.raises(InputError, match="pretrained weights"):
        open_model("skipless_vit_tiny_patch16_224", pretrained=True)


def test_what_is_no_run(tmp_path, digits_run) -> None:
    with pytest.raises(InputError, match="no run folder"):
        open_model(str(tmp_path))
    with pytest.raises(InputError, match="weights of its own"):
        open_model(str(digits_run), pretrained=True)
