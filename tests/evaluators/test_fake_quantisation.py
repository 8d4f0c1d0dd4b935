"""Fake quantisation: equal to integers, put in and taken out of every family without a trace."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from reference.hf_models import FAMILIES, Family
from reference.quantisation import integer_linear, rounded
from reference.vision_models import VITS, encoder, images, randomised
from torch import Tensor, nn
from torch.nn import functional

from skipless.errors import InputError
from skipless.evaluators.quantisation import is_quantised, precision, quantisation_of, quantise_, unquantise_
from skipless.models import block_views, remove_skips_


def part(model: nn.Module, name: str) -> Any:
    return model.get_submodule(name)


def single(in_features: int = 40) -> nn.Module:
    """A block of one linear layer alone cannot be viewed, so the layer is one of a vision transformer's."""
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32, embed_dim=in_features, num_heads=2)
    return vit.eval()


@pytest.mark.parametrize("dim", [40, 1536])
@pytest.mark.parametrize("bits", [(8, 8), (8, 6), (6, 6), (4, 8), (4, 4), (2, 3)])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("per", [("channel", "token"), ("tensor", "tensor"), ("channel", "tensor")])
def test_a_linear_layer_equals_integers(dim: int, bits: tuple[int, int], symmetric: bool, per: Any) -> None:
    vit = single(dim)
    linear = part(vit, "blocks.0.mlp.fc1")
    with torch.no_grad():
        linear.weight[3] = 0
        linear.weight[2, 2] = 50
        linear.bias.normal_()
    x = torch.randn(2, 5, dim) * torch.linspace(0.1, 9, 5)[:, None] + 1
    grids = {"weights_per": per[0], "activations_per": per[1]}
    quantise_(vit, *bits, symmetric_weights=symmetric, symmetric_activations=symmetric, **grids)
    given = (linear.weight, linear.bias, *bits)
    expected = integer_linear(x, *given, symmetric=symmetric, by_row=per[0] == "channel", by_token=per[1] == "token")
    assert torch.equal(linear(x), expected)


def test_sums_that_float32_could_not_hold_are_exact() -> None:
    vit = single(4096)
    linear = part(vit, "blocks.0.mlp.fc1")
    with torch.no_grad():
        linear.weight.fill_(1.0)
        linear.weight[:, 1] = 126 / 127
    x = torch.ones(1, 1, 4096)
    expected = integer_linear(x, linear.weight, linear.bias, 8, 8, symmetric=True, by_row=True, by_token=True)
    assert 4096 * 127 * 127 > 2**24
    assert torch.equal(part(quantise_(vit), "blocks.0.mlp.fc1")(x), expected)


@pytest.mark.parametrize("bits", [(8, None), (None, 6)])
def test_one_of_both_can_be_left_as_it_is(bits: tuple[int | None, int | None]) -> None:
    vit = single()
    linear = part(vit, "blocks.0.attn.qkv")
    x = torch.randn(2, 5, 40)
    w = linear.weight if bits[0] is None else rounded(linear.weight, 8, rows=True)
    entering = x if bits[1] is None else rounded(x, 6, rows=True)
    quantise_(vit, *bits)
    assert torch.equal(linear(x), functional.linear(entering, w) + linear.bias)


def built() -> dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]]:
    found: dict[str, Any] = {name: ((lambda make=make: randomised(make())), images) for name, make in VITS.items()}
    for family in FAMILIES.values():
        found[family.name] = (family.build, family.inputs)
    for first in (True, False):
        for batch in (True, False):
            made = lambda first=first, batch=batch: randomised(encoder(norm_first=first, batch_first=batch))  # noqa: E731
            found[f"encoder {first} {batch}"] = (made, lambda: torch.randn(2, 5, 24, dtype=torch.float64))
    return found


MODELS = built()


def output(model: nn.Module, given: Tensor) -> Tensor:
    with torch.no_grad():
        found = model(given)
    return found if isinstance(found, Tensor) else found[0]


def traces(model: nn.Module) -> list[Any]:
    """What could be left behind: classes, attributes, hooks."""
    return [
        (name, type(module), sorted(module.__dict__), [len(getattr(module, hooks)) for hooks in _HOOKS])
        for name, module in model.named_modules()
    ]


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("skipless", [False, True])
def test_every_family_is_quantised_and_comes_back(name: str, skipless: bool) -> None:
    make, inputs = MODELS[name]
    model, given = make(), inputs()
    if skipless:
        remove_skips_(model)
    before, state, left = output(model, given), copy.deepcopy(model.state_dict()), traces(model)
    assert quantise_(model, 4, 4, ends=True) is model
    assert list(model.state_dict()) == list(state)
    coarse = output(model, given)
    assert not torch.equal(coarse, before)
    assert [view.name for view in block_views(model)] == [view.name for view in block_views(make())]
    assert unquantise_(model) is model
    assert torch.equal(output(model, given), before)
    assert traces(model) == left
    assert all(torch.equal(one, state[key]) for key, one in model.state_dict().items())


@pytest.mark.parametrize("name", MODELS)
def test_every_linear_map_of_a_block_is_rounded(name: str) -> None:
    """A map that were used without its module would keep what rounding to two bits takes away."""
    make, inputs = MODELS[name]
    model, given = make(), inputs()
    with torch.no_grad():
        for view in block_views(model):
            for linear in view.maps:
                linear.weight.fill_(0)
                linear.weight.view(-1)[0] = 1.0
                linear.weight.view(-1)[1:] = 0.2  # a third of the largest, rounded to 0 at two bits
    by_hand = copy.deepcopy(model)
    with torch.no_grad():
        for view in block_views(by_hand):
            for linear in view.maps:
                linear.weight.copy_((linear.weight > 0.5).to(linear.weight))
    plain = output(model, given)
    quantise_(model, 2, None, weights_per="tensor")
    torch.testing.assert_close(output(model, given), output(by_hand, given), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(plain, output(by_hand, given))


def test_attention_of_eight_bits_is_the_librarys() -> None:
    """Masks, both orders of dimensions, weights that are asked for."""
    model = randomised(encoder(norm_first=True, batch_first=False, layers=1))
    mha = part(model, "layers.0.self_attn")
    x = torch.randn(6, 2, 24, dtype=torch.float64)
    padding = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    causal = torch.triu(torch.full((6, 6), -torch.inf, dtype=torch.float64), 1)
    cases: list[dict[str, Any]] = [
        {},
        {"key_padding_mask": padding, "average_attn_weights": False},
        {"attn_mask": causal},
        {"attn_mask": causal.isinf(), "need_weights": False},
        {"attn_mask": causal.expand(6, 6, 6)},
    ]
    whole = [mha(x, x, x, **case) for case in cases]
    quantise_(model, 8, None)
    for case, (y, weights) in zip(cases, whole, strict=True):
        found, shown = mha(x, x, x, **case)
        torch.testing.assert_close(found, y, rtol=0.05, atol=0.05)
        assert (shown is None) == (weights is None)
        if weights is not None:
            assert shown.shape == weights.shape


def test_static_ranges_are_those_of_the_unquantised_model() -> None:
    vit = single()
    batches = [(torch.randn(3, 3, 32, 32), torch.zeros(3)) for _ in range(2)]
    seen: list[Tensor] = []
    linear = part(vit, "blocks.0.mlp.fc2")
    handle = linear.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    for batch, _ in batches:
        vit(batch)
    handle.remove()
    quantise_(vit, 8, 8, activations_per="tensor", calibration=batches)
    entering = torch.cat(seen)
    assert linear.quantisation_rule.range == (entering.min().item(), entering.max().item())
    assert quantisation_of(vit).static
    wide = 100 * torch.randn(1, 3, 160)
    scale = entering.abs().max() / 127
    clipped = (wide / scale).round().clamp(-127, 127) * scale
    torch.testing.assert_close(
        linear(wide), functional.linear(clipped, rounded(linear.weight, 8, rows=True), linear.bias)
    )


def test_attention_in_one_module_has_two_ranges() -> None:
    model = randomised(VITS["torchvision"]())
    quantise_(model, activations_per="tensor", calibration=[images()])
    rule = part(model, "encoder.layers.encoder_layer_0.self_attention").quantisation_rule
    assert rule.range is not None
    assert rule.inner is not None
    assert rule.range != rule.inner


def test_a_quantised_model_can_be_copied_and_pickled() -> None:
    vit = single()
    x = torch.randn(2, 3, 32, 32)
    expected = output(quantise_(vit, 4, 4), x)
    copied, loaded = copy.deepcopy(vit), pickle.loads(pickle.dumps(vit))
    for other in (copied, loaded):
        assert torch.equal(output(other, x), expected)
        with torch.no_grad():
            part(other, "blocks.0.mlp.fc1").weight.mul_(3)
        assert not torch.equal(output(other, x), expected)
    assert torch.equal(output(vit, x), expected)
    unquantise_(copied)
    assert is_quantised(vit)


_COMPILED = """
import timm, torch
from skipless.evaluators.quantisation import quantise_, unquantise_
vit = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32).eval()
x = torch.randn(2, 3, 32, 32)
with torch.no_grad():
    compiled = torch.compile(vit, backend="eager", fullgraph=True)
    compiled(x)
    for model in (vit, compiled):
        quantise_(model, 4, 4)
        expected = vit(x)
        assert torch.equal(compiled(x), expected)
        unquantise_(model)
        assert torch.equal(compiled(x), vit(x)) and not torch.equal(vit(x), expected)
"""


def test_a_compiled_model_is_compiled_anew() -> None:
    """In a process of its own: checks of types at run time cannot be compiled."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", _COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_autocast_has_the_dtype_of_the_unquantised_map_and_the_sums_of_integers() -> None:
    vit = quantise_(single())
    linear = part(vit, "blocks.0.mlp.fc1")
    x = torch.randn(2, 5, 40)
    expected = linear(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = linear(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.bfloat16())


def test_gradients_pass_the_rounding() -> None:
    vit = quantise_(single(), 4, 4)
    linear = part(vit, "blocks.0.mlp.fc1")
    x = torch.randn(2, 5, 40, requires_grad=True)
    linear(x).sum().backward()
    w = rounded(linear.weight, 4, rows=True).detach()
    torch.testing.assert_close(x.grad, w.sum(0).expand(2, 5, 40))
    with torch.no_grad():
        assert torch.equal(linear(x), linear(x.detach()))


def test_a_weight_that_changes_is_rounded_anew() -> None:
    vit = quantise_(single())
    other = single()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    vit.load_state_dict(other.state_dict())
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(output(vit, x), output(quantise_(other), x))


def test_tied_heads_stay_whole_unless_asked_for() -> None:
    family = next(one for one in FAMILIES.values() if one.name == "LlamaForCausalLM")
    model = family.build(tie_word_embeddings=True)
    quantise_(model)
    assert type(part(model, "lm_head")) is nn.Linear
    quantise_(unquantise_(model), ends=True)
    head, rows = part(model, "lm_head"), part(model, "model.embed_tokens")
    assert head.weight is rows.weight
    assert "Quantised" in type(head).__name__
    assert torch.equal(rows(torch.arange(31)), rounded(rows.weight, 8, rows=True))


def test_what_cannot_be_quantised_is_refused_and_nothing_is_changed() -> None:
    class Mine(nn.Linear):
        pass

    vit = single()
    linear = part(vit, "blocks.0.mlp.fc2")
    linear.__class__ = Mine
    with pytest.raises(InputError, match=r"blocks.0.mlp.fc2 is a `Mine`"):
        quantise_(vit)
    assert not is_quantised(vit)
    linear.__class__ = nn.Linear
    quantise_(vit)
    with pytest.raises(InputError, match="quantised already .W8A8.: call unquantise_ first"):
        quantise_(vit, 4, 4)
    unquantise_(vit)
    with pytest.raises(InputError, match="not quantised"):
        unquantise_(vit)
    with pytest.raises(InputError, match="no adapter"):
        quantise_(nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"weights": 9}, "weights=9: give 2 to 8"),
        ({"activations": 1}, "activations=1"),
        ({"weights": None, "activations": None}, "quantise nothing"),
        ({"calibration": []}, "activations_per='tensor'"),
        ({"calibration": [], "activations_per": "tensor"}, "no batches"),
        ({"calibration": [], "activations_per": "tensor", "activations": None}, "activations=None"),
        ({"calibration": [torch.full((1, 3, 32, 32), torch.nan)], "activations_per": "tensor"}, "not finite"),
    ],
)
def test_refusals(given: dict[str, Any], said: str) -> None:
    vit = single()
    left = traces(vit)
    with pytest.raises(InputError, match=said):
        quantise_(vit, **given)
    assert traces(vit) == left


def test_names_of_precisions() -> None:
    assert [precision(name) for name in ("W8A8", "w4a8", "W8", "A6")] == [(8, 8), (4, 8), (8, None), (None, 6)]
    for name in ("", "W16A16", "8", "W8A8A8", "W1A8"):
        with pytest.raises(InputError, match="no precision"):
            precision(name)


def test_families_are_all_there() -> None:
    assert all(isinstance(one, Family) for one in FAMILIES.values())
    assert len(MODELS) > 20
