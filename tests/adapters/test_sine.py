"""What a sine adapter computes, against the formulas in float64; everything that PEFT lets one do with a forward."""

import math
import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from reference import sine as twin
from torch import nn

from skipless.adapters import SineLoraConfig, sine_
from skipless.adapters.layer import SineLinear
from skipless.errors import InputError

pytestmark = pytest.mark.filterwarnings(*twin.PEFT_WARNS)
X = torch.randn(5, 12, generator=torch.Generator().manual_seed(3))
OPTIONS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {"0": 2}, "alpha_pattern": {"2": 5}},
    "own scaling": {"scaling": 2.5},
    "another frequency": {"frequency": 200.0},
    "dropout, in evaluation": {"lora_dropout": 0.5},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_output_is_the_formulas(name) -> None:
    model = twin.adapted(**OPTIONS[name]).double().eval()
    expected = twin.mlp_output(model, X, [twin.layer_delta(layer) for layer in twin.layers(model).values()])
    torch.testing.assert_close(model(X.double()), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_lower_precision_the_product_is_still_in_float32(dtype) -> None:
    """At omega = 2,000 the phases have a spread of hundreds of radians: a product in bfloat16 would be noise."""
    model = twin.adapted(frequency=2000.0, dtype=dtype)
    x = X.to(dtype)
    expected = twin.mlp_output(model, x, [twin.layer_delta(layer) for layer in twin.layers(model).values()])
    found = model(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-3 if dtype == torch.float32 else 0.06)
    coarse = next(iter(twin.layers(model).values())).to(dtype)
    product = 2000 * (coarse.lora_B["default"].weight @ coarse.lora_A["default"].weight)
    exact = 2000 * (coarse.lora_B["default"].weight.double() @ coarse.lora_A["default"].weight.double())
    assert dtype == torch.float32 or (product.double() - exact).abs().max() > 1


def test_autocast_reaches_the_linear_map_and_not_the_sine() -> None:
    model = twin.adapted(frequency=2000.0)
    expected = twin.mlp_output(model, X, [twin.layer_delta(layer) for layer in twin.layers(model).values()])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(X)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.06)


def test_a_new_adapter_changes_nothing_and_trains() -> None:
    base = twin.mlp()
    before = base(X)
    model = sine_(get_peft_model(base, LoraConfig(r=3, target_modules=["0", "2"])))
    assert torch.equal(model(X), before)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-4)
    losses = []
    for _ in range(40):
        loss = model(X).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(layer.base_layer.weight.grad is None for layer in twin.layers(model).values())


def test_gradients_are_those_of_the_naive_computation() -> None:
    model = twin.adapted(lora_bias=True).double()
    model(X.double()).square().sum().backward()
    layers = list(twin.layers(model).values())
    found = [p.grad.clone() for p in model.parameters() if p.requires_grad]
    model.zero_grad()
    hidden = X.double()
    for index, layer in enumerate(layers):
        b, a = layer.lora_B["default"], layer.lora_A["default"]
        weight = torch.sin(30 * (b.weight @ a.weight)) / math.sqrt(layer.in_features)
        added = (hidden @ weight.mT + b.bias) * 7 / 3
        hidden = layer.base_layer(hidden) + added
        hidden = nn.functional.gelu(hidden) if index == 0 else hidden
    hidden.square().sum().backward()
    for one, parameter in zip(found, [p for p in model.parameters() if p.requires_grad], strict=True):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-10, atol=1e-10)


def test_dropout_is_on_the_inputs_as_in_lora() -> None:
    model = twin.adapted(lora_dropout=0.5, target_modules=["0"]).train()
    layer = next(iter(twin.layers(model).values()))
    torch.manual_seed(4)
    found = layer(X) - layer.base_layer(X)
    torch.manual_seed(4)
    dropped = nn.functional.dropout(X, 0.5)
    torch.testing.assert_close(found, (dropped.double() @ twin.layer_delta(layer).mT).float(), rtol=1e-4, atol=1e-5)


def test_adapters_of_both_kinds_add_up_and_mix_in_a_batch() -> None:
    model = twin.adapted()
    config = {"r": 2, "target_modules": ["0", "2"], "init_lora_weights": False}
    model.add_adapter("plain", LoraConfig(**config))
    model.add_adapter("other", SineLoraConfig(**config, sine_frequency=50.0))
    model = twin.draw(model, seed=5).eval()
    layers = list(twin.layers(model).values())
    changes = {
        name: [twin.layer_delta(layer, name, plain=name == "plain") for layer in layers]
        for name in ("default", "plain", "other")
    }
    names = ["default", "__base__", "plain", "other", "default"]
    found = model(X, adapter_names=names)
    zero = [torch.zeros_like(one) for one in changes["plain"]]
    for row, name in enumerate(names):
        expected = twin.mlp_output(model, X[row], changes.get(name, zero))
        torch.testing.assert_close(found[row].double(), expected, rtol=0, atol=1e-5)
    model.base_model.set_adapter(["default", "plain", "other"])
    both = [sum(parts) for parts in zip(*changes.values(), strict=True)]
    torch.testing.assert_close(model(X).double(), twin.mlp_output(model, X, both), rtol=0, atol=1e-4)
    with model.disable_adapter():
        torch.testing.assert_close(model(X).double(), twin.mlp_output(model, X, zero), rtol=0, atol=1e-5)


def test_scaling_an_adapter_scales_what_it_adds() -> None:
    model = twin.adapted()
    layers = list(twin.layers(model).values())
    for layer in layers:
        layer.scale_layer(0.25)
    expected = twin.mlp_output(model, X, [twin.layer_delta(layer) / 4 for layer in layers])
    torch.testing.assert_close(model(X).double(), expected, rtol=0, atol=1e-5)


def test_conv1d_of_transformers_is_laid_out_the_other_way() -> None:
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    base = nn.Sequential(Conv1D(7, 12))
    config = LoraConfig(r=3, target_modules=["0"], fan_in_fan_out=True, init_lora_weights=False)
    model = twin.draw(sine_(get_peft_model(base, config), 30.0))
    layer = next(iter(twin.layers(model).values()))
    assert layer.lora_sine["default"].scaling == math.sqrt(12)
    change = twin.layer_delta(layer)
    expected = twin.output(X, layer.base_layer.weight.mT, layer.base_layer.bias, change)
    torch.testing.assert_close(model(X).double(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(layer.get_delta_weight("default").double(), change.mT, rtol=0, atol=1e-5)
    model.merge_adapter()
    torch.testing.assert_close(model(X).double(), expected, rtol=0, atol=1e-5)


def test_the_config_class_and_the_call_make_the_same_model() -> None:
    called = twin.adapted(frequency=50.0, scaling=3.0)
    config = SineLoraConfig(
        r=3, lora_alpha=7, target_modules=["0", "2"], init_lora_weights=False, sine_frequency=50.0, sine_scaling=3.0
    )
    made = twin.draw(get_peft_model(twin.mlp(), config))
    assert torch.equal(called(X), made(X))
    assert called.peft_config["default"].to_dict() == {**config.to_dict(), "task_type": None}


def test_the_users_config_stays_plain() -> None:
    config = LoraConfig(r=3, target_modules=["0"])
    sine_(get_peft_model(twin.mlp(), config))
    plain = get_peft_model(twin.mlp(), config)
    assert not any(isinstance(layer, SineLinear) for layer in plain.modules())


def test_one_adapter_of_several_by_name() -> None:
    model = get_peft_model(twin.mlp(), LoraConfig(r=3, target_modules=["0"], init_lora_weights=False))
    model.add_adapter("b", LoraConfig(r=3, target_modules=["0"], init_lora_weights=False))
    sine_(model, adapter="b")
    layer = next(iter(twin.layers(model).values()))
    assert list(layer.lora_sine) == ["b"]
    assert type(model.peft_config["default"]) is LoraConfig


@pytest.mark.parametrize("again", [LoraConfig, SineLoraConfig])
def test_a_name_that_is_used_again_is_what_its_config_says(again) -> None:
    model = twin.adapted()
    model.add_adapter("b", LoraConfig(r=2, target_modules=["0"]))
    model.set_adapter("b")
    model.delete_adapter("default")
    model.add_adapter("default", again(r=3, lora_alpha=7, target_modules=["0", "2"], init_lora_weights=False))
    model.set_adapter("default")
    model = twin.draw(model)
    plain = again is LoraConfig
    changes = [twin.layer_delta(layer, plain=plain) for layer in twin.layers(model).values()]
    torch.testing.assert_close(model(X).double(), twin.mlp_output(model, X, changes), rtol=0, atol=1e-4)


def test_a_model_that_is_adapted_twice_is_what_the_second_config_says() -> None:
    model = twin.adapted(target_modules=["0"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = LoraConfig(r=3, lora_alpha=7, target_modules=["0"], init_lora_weights=False)
        model = twin.draw(get_peft_model(model.get_base_model(), plain))
    layer = next(iter(twin.layers(model).values()))
    expected = twin.output(X, layer.base_layer.weight, layer.base_layer.bias, twin.layer_delta(layer, plain=True))
    torch.testing.assert_close(layer(X).double(), expected, rtol=0, atol=1e-5)


def test_without_pefts_wrapper() -> None:
    from peft import inject_adapter_in_model

    config = {"r": 3, "lora_alpha": 7, "target_modules": ["0", "2"], "init_lora_weights": False}
    made = twin.draw(inject_adapter_in_model(SineLoraConfig(**config, sine_frequency=30.0), twin.mlp()))
    called = twin.draw(sine_(inject_adapter_in_model(LoraConfig(**config), twin.mlp()), 30.0))
    assert torch.equal(made(X), twin.adapted()(X))
    assert torch.equal(called(X), twin.adapted()(X))


def test_in_a_mixed_model() -> None:
    config = SineLoraConfig(r=3, lora_alpha=7, target_modules=["0", "2"], init_lora_weights=False, sine_frequency=30.0)
    model: Any = twin.draw(get_peft_model(twin.mlp(), config, mixed=True))
    assert torch.equal(model(X), twin.adapted()(X))


COMPILED = """
import sys, warnings
sys.path[:0] = {path!r}
import torch
from reference import sine as twin
warnings.simplefilter("ignore")
twin.hide_torchao()
x = torch.randn(5, 12, generator=torch.Generator().manual_seed(3))
model = twin.adapted()
wanted = [p for p in model.parameters() if p.requires_grad]
expected = model(x)
grads = torch.autograd.grad(expected.square().sum(), wanted)
found = torch.compile(model, backend="aot_eager", fullgraph=True)(x)
same = torch.autograd.grad(found.square().sum(), wanted)
for one, other in zip((found, *same), (expected, *grads), strict=True):
    torch.testing.assert_close(one, other)
"""


@pytest.mark.slow
def test_compiled_as_one_graph() -> None:
    """In a process of its own: what checks shapes in these tests cannot be compiled."""
    code = COMPILED.format(path=sys.path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_copies_and_pickles_compute_the_same() -> None:
    import copy
    import pickle

    model = twin.adapted()
    assert torch.equal(copy.deepcopy(model)(X), model(X))
    assert torch.equal(pickle.loads(pickle.dumps(model))(X), model(X))


def test_casting_a_model_keeps_the_frequency() -> None:
    model = twin.adapted(frequency=201.37, scaling=3.3333)
    for dtype in (torch.bfloat16, torch.float32):
        model.to(dtype)
    for layer in twin.layers(model).values():
        assert layer.lora_sine["default"].constants.view(torch.float64).tolist() == [201.37, 3.3333]


def test_eva_gives_new_ranks_to_a_sine_that_stays_one() -> None:
    from peft import initialize_lora_eva_weights

    torch.manual_seed(0)
    config = SineLoraConfig(r=3, target_modules=["0", "2"], init_lora_weights="eva", sine_frequency=30.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(twin.mlp(), config)
        batches = [torch.randn(8, 12) for _ in range(4)]
        initialize_lora_eva_weights(
            model, batches, forward_fn=lambda m, x: m(x), prepare_model_inputs_fn=None,
            prepare_layer_inputs_fn=None, show_progress_bar=False,
        )  # fmt: skip
    model = twin.draw(model)
    changes = [twin.layer_delta(layer) for layer in twin.layers(model).values()]
    torch.testing.assert_close(model(X).double(), twin.mlp_output(model, X, changes), rtol=0, atol=1e-4)


def test_what_peft_tells_of_a_model() -> None:
    model = twin.adapted()
    layers = model.get_layer_status()
    assert [(one.name, one.available_adapters, one.merged_adapters) for one in layers] == [
        ("model.0", ["default"], []),
        ("model.2", ["default"], []),
    ]
    status = model.get_model_status()
    assert (status.peft_types, status.num_adapter_layers) == ({"default": "LORA"}, 2)
    assert model.get_nb_trainable_parameters()[0] == 3 * (12 + 10 + 10 + 6)
    assert "Sine(frequency=30" in repr(model)


def test_replicated_layers_have_adapters_of_their_own_and_are_not_merged() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SineLoraConfig(r=2, target_modules=["q_proj"], layer_replication=[(0, 2), (1, 2)], init_lora_weights=False)
    model = get_peft_model(LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=31)), config)
    model = twin.draw(model)
    layers = list(twin.layers(model).values())
    assert [bool(layer.shared_with) for layer in layers] == [False, True, True]
    assert not torch.equal(layers[1].get_delta_weight("default"), layers[2].get_delta_weight("default"))
    with pytest.raises(InputError, match="same weight as"):
        model.merge_adapter()


MISSING = """
import importlib.util, sys
sys.path[:0] = {path!r}
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "peft" else found(name, *rest)
import skipless
assert "adapters" in dir(skipless)
try:
    skipless.adapters.sine_
except skipless.InputError as error:
    print(error)
"""


def test_without_peft_the_error_says_how_to_install_it() -> None:
    code = MISSING.format(path=sys.path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "skipless.adapters needs PEFT: pip install 'peft>=0.18,<0.22'", done.stderr[-1000:]


def test_importing_skipless_imports_no_peft_and_its_adapters_register_once() -> None:
    code = f"import sys; sys.path[:0] = {sys.path!r}; import skipless; assert 'peft' not in sys.modules"
    code += "\nimport skipless.adapters, importlib, peft.tuners.tuners_utils as utils\n"
    code += "from skipless.adapters import registration\nbefore = utils.BaseTuner.inject_adapter\n"
    code += "registration.register(); assert utils.BaseTuner.inject_adapter is before"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1000:]
