"""What PEFT would do with B A of a sine adapter as if it were LoRA's: right, or refused with a word."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from reference import sine as twin
from torch import nn

from skipless.adapters import SineLoraConfig, load_sine, sine_
from skipless.errors import InputError

pytestmark = pytest.mark.filterwarnings(*twin.PEFT_WARNS)
X = torch.randn(5, 12, generator=torch.Generator().manual_seed(3))
CONFIG: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["0", "2"], "init_lora_weights": False}
SVDS = ("svd", "ties_svd", "dare_linear_svd", "dare_ties_svd", "magnitude_prune_svd")
OTHERS = ("linear", "cat", "ties", "dare_linear", "dare_ties", "magnitude_prune")


class Mixed(nn.Module):
    """A module of each kind that PEFT has a LoRA for."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.line, self.conv = nn.Embedding(9, 8), nn.Linear(8, 8), nn.Conv2d(2, 2, 3)
        self.conv1d, self.attend = nn.Conv1d(2, 2, 3), nn.MultiheadAttention(8, 2)


@pytest.mark.parametrize("target", ["embed", "conv", "conv1d", "attend"])
@pytest.mark.parametrize("how", ["sine_", "config"])
def test_layers_that_are_no_linear_maps(target, how) -> None:
    options: dict[str, Any] = {"r": 2, "target_modules": ["line", target]}
    with pytest.raises(InputError, match=rf"{target}: PEFT's .* cannot have a sine: target nn.Linear"):
        if how == "config":
            get_peft_model(Mixed(), SineLoraConfig(**options))
        else:
            sine_(get_peft_model(Mixed(), LoraConfig(**options)))


def test_a_refused_model_is_as_it_was() -> None:
    model = get_peft_model(Mixed(), LoraConfig(r=2, target_modules=["line", "embed"]))
    before = {name: type(module) for name, module in model.named_modules()}
    with pytest.raises(InputError):
        sine_(model)
    assert {name: type(module) for name, module in model.named_modules()} == before
    assert type(model.peft_config["default"]) is LoraConfig


STARTS = ["pissa", "pissa_niter_4", "olora", "loftq", "corda", "lora_ga", "mica", "no such start"]


@pytest.mark.parametrize("start", STARTS)
def test_starts_that_take_b_a_out_of_the_base(start) -> None:
    base = twin.mlp()
    before = base[0].weight.clone()
    config = SineLoraConfig(r=2, target_modules=["0"])
    config.init_lora_weights = start
    with pytest.raises(InputError, match=f"init_lora_weights='{start}' takes B A out"):
        get_peft_model(base, config)
    assert torch.equal(before, base[0].weight)


@pytest.mark.parametrize("start", [True, False, "gaussian", "orthogonal"])
def test_starts_that_leave_the_base_alone(start) -> None:
    base = twin.mlp()
    before = base[0].weight.clone()
    model = sine_(get_peft_model(base, LoraConfig(r=2, target_modules=["0"], init_lora_weights=start)))
    assert torch.equal(before, model.get_base_model()[0].base_layer.weight)


def test_dora_and_other_variants() -> None:
    with pytest.raises(InputError, match="use_dora=True"):
        sine_(get_peft_model(twin.mlp(), LoraConfig(r=2, target_modules=["0"], use_dora=True)))
    with pytest.raises(InputError, match="use_dora=True"):
        get_peft_model(twin.mlp(), SineLoraConfig(r=2, target_modules=["0"], use_dora=True))
    with pytest.raises(InputError, match="Variant is not plain LoRA"):
        sine_(get_peft_model(twin.mlp(), LoraConfig(r=2, target_modules=["0"], alora_invocation_tokens=[1])))


def test_adapters_that_are_not_lora() -> None:
    from peft import LoHaConfig

    with pytest.raises(InputError, match="LoHaConfig: the sine is for LoRA"):
        sine_(get_peft_model(twin.mlp(), LoHaConfig(target_modules=["0"])))
    with pytest.raises(InputError, match="Sequential has no adapter: call get_peft_model"):
        sine_(twin.mlp())


def test_parameters_as_targets() -> None:
    with pytest.raises(InputError, match=r"target_parameters=\['0.weight'\]"):
        sine_(get_peft_model(twin.mlp(), LoraConfig(r=2, target_parameters=["0.weight"], target_modules=[])))


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"no adapter 'defaut': did you mean default\? there are \['default'\]"):
        sine_(get_peft_model(twin.mlp(), LoraConfig(target_modules=["0"])), adapter="defaut")


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_numbers_that_are_none(value) -> None:
    model = get_peft_model(twin.mlp(), LoraConfig(target_modules=["0"]))
    with pytest.raises(InputError, match="frequency="):
        sine_(model, value)
    with pytest.raises(InputError, match="scaling="):
        sine_(model, scaling=value)
    with pytest.raises(InputError, match="frequency="):
        SineLoraConfig(sine_frequency=value)
    assert type(model.peft_config["default"]) is LoraConfig


def test_what_is_trained_or_merged_already() -> None:
    model = get_peft_model(twin.mlp(), LoraConfig(target_modules=["0"]))
    twin.draw(model)
    with pytest.raises(InputError, match="is trained already"):
        sine_(model)
    other = twin.adapted()
    other.merge_adapter()
    with pytest.raises(InputError, match="is merged; call unmerge_adapter"):
        sine_(other)
    other.unmerge_adapter()
    assert sine_(other, 55.0).peft_config["default"].sine_frequency == 55.0


def test_quantised_weights() -> None:
    if importlib.util.find_spec("torchao") is None or twin.hide_torchao():
        pytest.skip("this PEFT knows no such torchao")
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    base = twin.mlp()
    quantize_(base, Int8WeightOnlyConfig())
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["0"]))
    with pytest.raises(InputError, match=r"0: PEFT's TorchaoLoraLinear of Linear cannot have a sine.*not quantised"):
        sine_(model)


def test_integer_weights() -> None:
    base = twin.mlp()
    base[0].weight = nn.Parameter(torch.ones(10, 12, dtype=torch.int8), requires_grad=False)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["0"]))
    with pytest.raises(InputError, match=r"weight of torch.int8, and merging needs floats"):
        sine_(model)


def test_tensor_parallel_layers() -> None:
    model = get_peft_model(twin.mlp(), LoraConfig(r=2, target_modules=["0"]))
    model.get_base_model()[0].base_layer._hf_tp_plan = "colwise"
    with pytest.raises(InputError, match="tensor parallelism"):
        sine_(model)


def _pair() -> Any:
    model = twin.adapted(**CONFIG)
    model.add_adapter("b", SineLoraConfig(**CONFIG, sine_frequency=50.0))
    model.add_adapter("plain", LoraConfig(**CONFIG))
    return twin.draw(model, seed=6).eval()


@pytest.mark.parametrize("names", [["default", "b"], ["plain", "default"], ["b", "plain"]])
def test_an_svd_of_what_they_add_makes_plain_lora(names) -> None:
    model = _pair()
    configs = dict(model.peft_config)
    changes = [
        0.5 * twin.layer_delta(layer, names[0], plain=names[0] == "plain")
        + 2 * twin.layer_delta(layer, names[1], plain=names[1] == "plain")
        for layer in twin.layers(model).values()
    ]
    model.add_weighted_adapter(names, [0.5, 2.0], "both", "svd", svd_rank=6)
    assert type(model.peft_config["both"]) is LoraConfig
    assert {name: model.peft_config[name] for name in configs} == configs
    assert type(model.peft_config["default"]) is SineLoraConfig
    for layer, change in zip(twin.layers(model).values(), changes, strict=True):
        u, s, vh = torch.linalg.svd(change)
        nearest = u[:, :6] * s[:6] @ vh[:6]
        torch.testing.assert_close(layer.get_delta_weight("both").double(), nearest, rtol=0, atol=1e-4)
        assert "both" not in layer.lora_sine


@pytest.mark.parametrize("kind", SVDS[1:])
def test_the_other_svds_make_plain_lora_too(kind) -> None:
    model = _pair()
    model.add_weighted_adapter(["default", "b"], [1.0, 1.0], "both", kind, density=0.5)
    assert type(model.peft_config["both"]) is LoraConfig
    model.set_adapter("both")
    assert model(X).isfinite().all()


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("names", [["default", "plain"], ["plain", "b"], ["b"]])
def test_combinations_of_a_and_b_are_refused(kind, names) -> None:
    model = _pair()
    with pytest.raises(InputError, match=r"combines A and B, and '(default|b)' has a sine"):
        model.add_weighted_adapter(names, [1.0] * len(names), "both", kind, density=0.5)
    assert "both" not in model.peft_config
    model.add_weighted_adapter(["plain", "plain"], [1.0, 1.0], "both", "linear")  # plain ones are combined as ever


def test_one_adapter_is_combined_linearly_by_peft_and_refused() -> None:
    with pytest.raises(InputError, match="two adapters or more"):
        _pair().add_weighted_adapter(["b"], [1.0], "both", "svd")


def test_the_difference_of_two_adapters(tmp_path) -> None:
    model = twin.adapted(init_lora_weights=True)
    model.save_pretrained(tmp_path / "start")
    with pytest.raises(InputError, match="path_initial_model_for_weight_conversion"):
        model.save_pretrained(tmp_path / "end", path_initial_model_for_weight_conversion=tmp_path / "start")


def test_hot_swapping(tmp_path) -> None:
    from peft.utils.hotswap import hotswap_adapter

    model, plain = twin.adapted(**CONFIG), get_peft_model(twin.mlp(), LoraConfig(**CONFIG))
    model.save_pretrained(tmp_path / "sine")
    plain.save_pretrained(tmp_path / "plain")
    before = model(X)
    for target, path in ((model, "sine"), (model, "plain"), (plain, "sine")):
        with pytest.raises(InputError, match="sine adapters are not hot-swapped: delete_adapter, then load_sine"):
            hotswap_adapter(target, tmp_path / path, "default")
    assert torch.equal(model(X), before)
    other = twin.draw(get_peft_model(twin.mlp(), LoraConfig(**CONFIG)), seed=9)
    hotswap_adapter(other, tmp_path / "plain", "default")  # plain ones are swapped as ever
    assert torch.equal(other(X), plain(X))


def test_padding_for_hot_swapping_changes_nothing() -> None:
    from peft.utils.hotswap import prepare_model_for_compiled_hotswap

    model = twin.adapted(**CONFIG)
    before = model(X)
    prepare_model_for_compiled_hotswap(model, target_rank=9)
    torch.testing.assert_close(model(X), before)


def test_intruder_dimensions() -> None:
    if (
        not hasattr(peft, "reduce_intruder_dimension")
        and importlib.util.find_spec("peft.tuners.lora.intruders") is None
    ):
        pytest.skip("this PEFT has no such function")
    from peft.tuners.lora.intruders import reduce_intruder_dimension

    model = _pair()
    with pytest.raises(InputError, match="gives A and B of plain LoRA"):
        reduce_intruder_dimension(model)
    assert "intruder_reduced" not in model.peft_config
    model.set_adapter("plain")
    reduce_intruder_dimension(model, old_adapter_name="plain", logging_sink=None)


def test_conversion_to_lora_is_of_what_the_adapter_does() -> None:
    if not hasattr(peft, "convert_to_lora"):
        pytest.skip("this PEFT has no such function")
    model = twin.adapted(**CONFIG)
    config, state = peft.convert_to_lora(model, rank=5)
    assert type(config) is LoraConfig
    for name, layer in twin.layers(model).items():
        found = state[f"{name}.lora_B.weight"].double() @ state[f"{name}.lora_A.weight"].double()
        u, s, vh = torch.linalg.svd(twin.layer_delta(layer), full_matrices=False)
        torch.testing.assert_close(found, u[:, :5] * s[:5] @ vh[:5], rtol=0, atol=1e-5)
    with pytest.raises(TypeError, match="do not support LoRA conversion"):
        peft.convert_to_lora(twin.adapted(**CONFIG, lora_bias=True), rank=3)  # it would leave the bias out


def test_arrow_beside_a_sine() -> None:
    from peft import ArrowConfig

    arrow = ArrowConfig(top_k=1)
    arrow.task_adapter_names, arrow.gks_adapter_names = ["default"], []
    router = LoraConfig(r=4, target_modules=["0", "2"], arrow_config=arrow)
    model = twin.adapted(**CONFIG)
    with pytest.raises(InputError, match=r"Arrow \('arrow_router'\) takes B A"):
        model.add_adapter("arrow_router", router)
    assert list(model.peft_config) == ["default"]
    plain = get_peft_model(twin.mlp(), LoraConfig(**CONFIG))
    plain.add_adapter("arrow_router", router)
    with pytest.raises(InputError, match="Arrow"):
        sine_(plain, adapter="default")


def test_x_lora_over_a_sine(tmp_path) -> None:
    from peft import XLoraConfig
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}

    def make() -> Any:
        return LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=31, use_cache=False))

    options: dict[str, Any] = {
        "r": 2,
        "target_modules": ["q_proj"],
        "init_lora_weights": False,
        "task_type": "CAUSAL_LM",
    }
    for kind, path in ((SineLoraConfig, tmp_path / "sine"), (LoraConfig, tmp_path / "plain")):
        get_peft_model(make(), kind(**options)).save_pretrained(path)
    config = {"task_type": "CAUSAL_LM", "hidden_size": 16, "xlora_depth": 1}
    get_peft_model(make(), XLoraConfig(**config, adapters={"0": str(tmp_path / "plain")}))
    with pytest.raises(InputError, match="X-LoRA mixes B A of plain LoRA"):
        get_peft_model(make(), XLoraConfig(**config, adapters={"0": str(tmp_path / "sine")}))


# Every file of PEFT's that reads A and B of LoRA, or what they add, and why it is right or refused.
READS = {
    "tuners/lora/layer.py": "SineLinear is its subclass; other layers are refused by their type",
    "tuners/lora/model.py": "SineLoraModel is its subclass",
    "tuners/lora/variants.py": "other variants are refused",
    "tuners/lora/dora.py": "refused",
    "tuners/lora/arrow.py": "refused",
    "tuners/lora/velora.py": "a variant",
    "tuners/lora/monteclora.py": "a variant",
    "tuners/lora/loraga.py": "a start that is refused",
    "tuners/lora/corda.py": "a start that is refused",
    "tuners/lora/eva.py": "a start; tested",
    "tuners/lora/conversion.py": "of get_delta_weight; tested",
    "tuners/lora/intruders.py": "refused",
    "tuners/lora/config.py": "texts",
    "tuners/lora/tp_layer.py": "a layer of another type",
    "tuners/lora/aqlm.py": "a layer of another type",
    "tuners/lora/awq.py": "a layer of another type",
    "tuners/lora/bnb.py": "a layer of another type",
    "tuners/lora/eetq.py": "a layer of another type",
    "tuners/lora/gptq.py": "a layer of another type",
    "tuners/lora/hqq.py": "a layer of another type",
    "tuners/lora/inc.py": "a layer of another type",
    "tuners/lora/te.py": "a layer of another type",
    "tuners/lora/torchao.py": "a layer of another type",
    "utils/hotswap.py": "refused",
    "utils/loftq_utils.py": "of bitsandbytes' layers alone",
    "utils/other.py": "texts",
    "utils/save_and_load.py": "tested by test_files.py",
    "utils/transformers_weight_conversion.py": "names of keys",
    "optimizers/lorafa.py": "gradients; the guide says so",
    "optimizers/riemannian.py": "gradients; the guide says so",
    "optimizers/loraplus.py": "learning rates",
    "tuners/xlora/layer.py": "refused",
    "tuners/xlora/model.py": "refused",
    "tuners/mixed/model.py": "layers do it",
    "tuners/tuners_utils.py": "names",
    "helpers.py": "scaling",
    "peft_model.py": "names",
    "tuners/lycoris_utils.py": "other methods",
}


def test_no_other_part_of_this_peft_reads_a_and_b() -> None:
    """A new version of PEFT may have new functions: whoever widens the pin decides about each."""
    root = Path(peft.__file__).parent
    own = {"lora", "xlora", "mixed"}
    found = set()
    for file in root.rglob("*.py"):
        place = file.relative_to(root).parts
        other_method = place[0] == "tuners" and len(place) > 2 and place[1] not in own
        text = file.read_text(encoding="utf-8")
        if not other_method and re.search(r"lora_[AB]\b|get_delta_weight", text):
            found.add("/".join(place))
    assert "tuners/lora/layer.py" in found
    assert found <= set(READS), found - set(READS)


def test_loaded_into_a_peft_model_of_another_kind(tmp_path) -> None:
    from peft import LoHaConfig

    twin.adapted().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="different peft types"):
        load_sine(get_peft_model(twin.mlp(), LoHaConfig(target_modules=["0"])), tmp_path, "other")
    assert isinstance(load_sine(twin.mlp(), tmp_path), PeftModel)


def test_an_adapter_that_is_refused_after_others_leaves_no_plain_one_behind() -> None:
    model = get_peft_model(Mixed(), LoraConfig(r=2, target_modules=["line"]))
    with pytest.raises(InputError, match="embed: PEFT's Embedding"):
        model.add_adapter("b", SineLoraConfig(r=2, target_modules=["line", "embed"]))
    assert list(model.peft_config) == ["default"]
    assert all("b" not in layer.lora_A and "b" not in layer.lora_embedding_A for layer in twin.layers(model).values())


def test_a_lora_model_of_somebodys_own() -> None:
    from peft.tuners.lora import LoraModel

    class Own(LoraModel):
        pass

    model = get_peft_model(twin.mlp(), LoraConfig(r=2, target_modules=["0"]))
    model.base_model.__class__ = Own
    with pytest.raises(InputError, match="Own is not PEFT's LoraModel"):
        sine_(model)
