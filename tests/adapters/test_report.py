"""What is measured of a sine adapter: against the definitions, and at the two ends, linear and not."""

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from reference import sine as twin

from skipless.adapters import SineLoraConfig, quantise_, sine_, sine_report
from skipless.errors import InputError

X = torch.randn(5, 12, generator=torch.Generator().manual_seed(3))
pytestmark = pytest.mark.filterwarnings(*twin.PEFT_WARNS)


def _ranks(matrix: torch.Tensor) -> tuple[float, float]:
    s = torch.linalg.svdvals(matrix)
    share = [float(one / s.sum()) for one in s if one > 1e-12 * s[0]]
    return float(s.square().sum() / s[0] ** 2), math.exp(-sum(p * math.log(p) for p in share))


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"scaling": 2.0, "alpha_pattern": {"2": 11}}])
def test_numbers_are_the_definitions(options) -> None:
    model = twin.adapted(**options)
    report = sine_report(model)
    assert [layer.name for layer in report.layers] == ["0", "2"]
    for found, layer in zip(report.layers, twin.layers(model).values(), strict=True):
        product = layer.lora_B["default"].weight.detach().double() @ layer.lora_A["default"].weight.detach().double()
        activated = torch.sin(30 * product)
        scaling = options.get("scaling", math.sqrt(layer.in_features))
        assert found.phase_std == pytest.approx(30 * product.std(correction=0).item())
        assert (found.stable_rank, found.effective_rank) == pytest.approx(_ranks(activated))
        assert (found.product_stable_rank, found.product_effective_rank) == pytest.approx(_ranks(product))
        assert found.first_order_alpha == pytest.approx(layer.lora_alpha["default"] * 30 / scaling)
        assert found.departure == pytest.approx(float((activated - 30 * product).norm() / activated.norm()))
        assert found.shape == tuple(layer.base_layer.weight.shape)


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"scaling": 2.0, "alpha_pattern": {"2": 11}}])
def test_lora_at_alpha_prime_is_the_sine_to_first_order(options) -> None:
    """With B of 1e-5: they differ by the square of the phase; LoRA at alpha itself is far off."""
    model = twin.adapted(**options).double()
    for layer in twin.layers(model).values():
        layer.lora_B["default"].weight.data *= 1e-5
    report = sine_report(model)
    config = {key: value for key, value in options.items() if key == "use_rslora"}
    lora = {}
    for pattern in (report.alpha_pattern, {}):
        base = twin.mlp().double()
        plain = get_peft_model(
            base, LoraConfig(r=3, lora_alpha=7, target_modules=["0", "2"], alpha_pattern=pattern, **config)
        ).double()
        for layer, other in zip(twin.layers(plain).values(), twin.layers(model).values(), strict=True):
            for factor in ("lora_A", "lora_B"):
                getattr(layer, factor)["default"].weight.data = getattr(other, factor)["default"].weight.data.clone()
        lora[bool(pattern)] = plain(X.double()) - base.eval()[0].base_layer(X.double()).new_zeros(())
    change = (model(X.double()) - twin.mlp().double()(X.double())).norm()
    assert (lora[True] - model(X.double())).norm() < 1e-6 * change
    assert (lora[False] - model(X.double())).norm() > 0.3 * change
    assert all(layer.departure < 1e-6 for layer in report.layers)
    assert all(layer.effective_rank == pytest.approx(layer.product_effective_rank, rel=1e-3) for layer in report.layers)


def test_the_rank_grows_where_the_phase_is_not_small() -> None:
    """B of 1e-2 at omega = 400, n = 1024 and r = 16: a spread of 0.29 rad more than doubles the effective rank."""
    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(1024, 1024))
    model = sine_(get_peft_model(base, LoraConfig(r=16, target_modules=["0"])), 400.0)
    layer = next(iter(twin.layers(model).values()))
    layer.lora_B["default"].weight.data.normal_(0, 1e-2)
    found = sine_report(model).layers[0]
    assert found.phase_std == pytest.approx(0.29, abs=0.01)
    assert found.product_effective_rank == pytest.approx(16, abs=0.2)
    assert found.effective_rank == pytest.approx(39, abs=1)


def test_a_new_adapter_has_no_rank() -> None:
    report = sine_report(sine_(get_peft_model(twin.mlp(), LoraConfig(r=3, target_modules=["0"]))))
    layer = report.layers[0]
    assert (layer.phase_std, layer.stable_rank, layer.effective_rank, layer.departure) == (0, 0, 0, 0)
    assert "0 -> 0" in str(report)


def test_bits_are_told() -> None:
    assert [layer.bits for layer in sine_report(quantise_(twin.adapted(), 3)).layers] == [3, 3]
    assert [layer.bits for layer in sine_report(twin.adapted()).layers] == [None, None]


def test_what_has_no_sine_is_refused() -> None:
    plain = get_peft_model(twin.mlp(), LoraConfig(r=3, target_modules=["0"]))
    with pytest.raises(InputError, match="'default' is plain LoRA: call sine_ first"):
        sine_report(plain)
    model = twin.adapted()
    model.add_adapter("b", SineLoraConfig(r=3, target_modules=["0"]))
    model.base_model.set_adapter(["default", "b"])
    with pytest.raises(InputError, match="are active: name one"):
        sine_report(model)
    assert sine_report(model, "b").adapter == "b"
