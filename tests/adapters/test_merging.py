"""Merging and unmerging, against the formulas; unmerged weights are what they were, to the bit."""

import copy
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from reference import sine as twin
from torch import nn

from skipless.adapters import SineLoraConfig, sine_
from skipless.errors import InputError

pytestmark = pytest.mark.filterwarnings(*twin.PEFT_WARNS)
X = torch.randn(5, 12, generator=torch.Generator().manual_seed(3))
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _same(before: dict[str, torch.Tensor], model: nn.Module) -> bool:
    now = model.state_dict()
    return before.keys() == now.keys() and all(torch.equal(now[name], before[name]) for name in now)


@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_merged_weight_is_the_formula_rounded_once(dtype, safe) -> None:
    model = twin.adapted(dtype=dtype, lora_bias=True)
    before = _state(model)
    layers = list(twin.layers(model).values())
    expected = [layer.base_layer.weight.double() + twin.layer_delta(layer) for layer in layers]
    model.merge_adapter(safe_merge=safe)
    eps = torch.finfo(dtype).eps if dtype != torch.float64 else 1e-6  # A and B are in float32
    for layer, weight in zip(layers, expected, strict=True):
        error = (layer.base_layer.weight.double() - weight).abs()
        assert (error <= 0.5 * eps * weight.abs().clamp_min(1e-2) + 2e-6).all()
    model.unmerge_adapter()
    assert _same(before, model)


def test_a_merged_model_computes_the_same() -> None:
    model = twin.adapted(lora_bias=True)
    before = model(X)
    model.merge_adapter()
    torch.testing.assert_close(model(X), before, rtol=0, atol=2e-5)
    plain = model.merge_and_unload()
    assert [type(one).__name__ for one in plain] == ["Linear", "GELU", "Linear"]
    torch.testing.assert_close(plain(X), before, rtol=0, atol=2e-5)
    assert set(plain.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_several_adapters_of_both_kinds_go_in_and_out(dtype) -> None:
    model = twin.adapted(dtype=dtype)
    config = {"r": 2, "target_modules": ["0", "2"], "init_lora_weights": False, "lora_bias": True}
    model.add_adapter("plain", LoraConfig(**config))
    model.add_adapter("other", SineLoraConfig(**config, sine_frequency=50.0))
    model = twin.draw(model, seed=5).eval()
    before = _state(model)
    model.base_model.set_adapter(["default", "plain", "other"])
    expected = model(X.to(dtype))
    model.merge_adapter(["plain", "default"])
    model.merge_adapter(["other"])
    torch.testing.assert_close(model(X.to(dtype)), expected, rtol=0.05, atol=0.2 if dtype.itemsize == 2 else 1e-4)
    with model.disable_adapter():  # PEFT unmerges for it, and leaves it so
        model(X.to(dtype))
    assert not any(layer.merged for layer in twin.layers(model).values())
    assert _same(before, model)


def test_pefts_own_dora_beside_a_sine_is_merged_and_unmerged() -> None:
    model = twin.adapted(target_modules=["0"])
    model.add_adapter("dora", LoraConfig(r=2, target_modules=["0"], init_lora_weights=False, use_dora=True))
    before = _state(model)
    model.merge_adapter(["default", "dora"])
    assert not _same(before, model)
    model.unmerge_adapter()
    assert _same(before, model)


def test_a_model_that_is_moved_or_copied_while_merged_is_still_unmerged() -> None:
    model = twin.adapted(dtype=torch.float64)
    before = [layer.base_layer.weight.clone() for layer in twin.layers(model).values()]
    model.merge_adapter()
    twice = copy.deepcopy(model)
    model.to(torch.bfloat16).unmerge_adapter()
    twice.unmerge_adapter()
    for layer, other, weight in zip(twin.layers(model).values(), twin.layers(twice).values(), before, strict=True):
        assert torch.equal(layer.base_layer.weight, weight.bfloat16())
        assert torch.equal(other.base_layer.weight, weight)


def test_weights_that_were_loaded_while_merged_are_not_overwritten() -> None:
    model = twin.adapted(target_modules=["0"])
    layer = next(iter(twin.layers(model).values()))
    model.merge_adapter()
    new = torch.randn(10, 12)
    layer.base_layer.load_state_dict({"weight": new, "bias": layer.base_layer.bias})
    model.unmerge_adapter()
    torch.testing.assert_close(
        layer.base_layer.weight.double(), new.double() - twin.layer_delta(layer), atol=1e-5, rtol=0
    )
    model.merge_adapter()
    model.unmerge_adapter()
    assert not hasattr(layer, "unmerged_weight")


def test_an_adapter_that_changes_while_merged_leaves_the_base_alone() -> None:
    """PEFT's own unmerging would subtract what was never added."""
    model = twin.adapted(target_modules=["0"])
    layer = next(iter(twin.layers(model).values()))
    before = layer.base_layer.weight.clone()
    model.merge_adapter()
    twin.draw(model, seed=9)
    model.unmerge_adapter()
    assert torch.equal(layer.base_layer.weight, before)


def test_what_is_broken_is_not_merged_by_a_safe_merge() -> None:
    model = twin.adapted(target_modules=["0"])
    layer = next(iter(twin.layers(model).values()))
    before = layer.base_layer.weight.clone()
    layer.lora_B["default"].weight.data[0, 0] = torch.inf
    with pytest.raises(ValueError, match="NaNs detected"):
        model.merge_adapter(safe_merge=True)
    assert torch.equal(layer.base_layer.weight, before)
    assert not layer.merged


def test_unmerging_what_is_not_merged_only_warns() -> None:
    model = twin.adapted()
    before = _state(model)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.unmerge_adapter()
    assert any("Already unmerged" in str(one.message) for one in told)
    assert _same(before, model)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 12)
        self.head = nn.Linear(12, 9, bias=False)
        self.other = nn.Linear(12, 12)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.other(self.embed(x)))


@pytest.mark.parametrize("mixed", [False, True])
def test_a_tied_weight_is_not_merged_and_the_rest_is_right(mixed) -> None:
    model = get_peft_model(
        Tied(), LoraConfig(r=2, target_modules=["head", "other"], init_lora_weights=False), mixed=mixed
    )
    twin.draw(sine_(model, 30.0))
    before = _state(model)
    expected = model(torch.arange(9))
    with pytest.raises(InputError, match=r"same weight as .*embed.*untie"):
        model.merge_adapter()
    with pytest.raises(InputError, match="untie"):
        model.merge_and_unload()
    if mixed:  # PEFT's mixed model merges layer by layer, and stops at the one that is refused
        model.unmerge_adapter()
    assert _same(before, model)
    torch.testing.assert_close(model(torch.arange(9)), expected)
    found = {name.split(".")[-1]: layer for name, layer in twin.layers(model).items()}
    assert found["head"].shared_with.endswith("embed")
    assert not found["other"].shared_with


def test_two_layers_of_one_weight_are_not_merged() -> None:
    base = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    base[1].weight = base[0].weight
    model = sine_(get_peft_model(base, LoraConfig(r=2, target_modules=["0", "1"])))
    with pytest.raises(InputError, match="untie"):
        model.merge_adapter()


def test_a_safe_merge_that_stops_at_the_second_adapter_is_taken_back_to_the_bit() -> None:
    model = twin.adapted(dtype=torch.bfloat16, target_modules=["0"])
    model.add_adapter("broken", SineLoraConfig(r=2, target_modules=["0"], init_lora_weights=False))
    layer = next(iter(twin.layers(model).values()))
    layer.lora_A["broken"].weight.data[0, 0] = torch.nan
    before = layer.base_layer.weight.clone()
    with pytest.raises(ValueError, match="NaNs detected"):
        model.merge_adapter(["default", "broken"], safe_merge=True)
    assert layer.merged_adapters == ["default"]
    model.unmerge_adapter()
    assert torch.equal(layer.base_layer.weight, before)
    assert not hasattr(layer, "unmerged_weight")
