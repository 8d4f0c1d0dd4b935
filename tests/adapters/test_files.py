"""Saved adapters: they come back as what they were, or fail with a word; never as plain LoRA."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from reference import sine as twin
from safetensors.torch import load_file, save_file

from skipless.adapters import SINE_LORA, SineLoraConfig, load_sine, quantise_, sine_
from skipless.adapters.layer import SineLinear
from skipless.errors import InputError

pytestmark = pytest.mark.filterwarnings(*twin.PEFT_WARNS)
X = torch.randn(5, 12, generator=torch.Generator().manual_seed(3))
CONFIG: dict[str, Any] = {"r": 3, "lora_alpha": 7, "target_modules": ["0", "2"], "init_lora_weights": False}


@pytest.fixture
def saved(tmp_path) -> tuple[Any, Path]:
    model = twin.adapted(scaling=2.0, lora_bias=True)
    model.save_pretrained(tmp_path / "sine")
    return model, tmp_path / "sine"


@pytest.fixture
def plain(tmp_path) -> Path:
    model = get_peft_model(twin.mlp(), LoraConfig(**CONFIG, lora_bias=True))
    model.save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


@pytest.mark.parametrize("options", [{}, {"low_cpu_mem_usage": True}, {"is_trainable": True}])
def test_pefts_from_pretrained_gives_the_sine_back(saved, options) -> None:
    model, path = saved
    loaded = PeftModel.from_pretrained(twin.mlp(), path, **options)
    assert torch.equal(loaded(X), model(X))
    assert torch.equal(load_sine(twin.mlp(), path)(X), model(X))
    assert isinstance(loaded.peft_config["default"], SineLoraConfig)


def test_pickled_files_come_back_too(tmp_path) -> None:
    model = twin.adapted()
    model.save_pretrained(tmp_path, safe_serialization=False)
    assert torch.equal(PeftModel.from_pretrained(twin.mlp(), tmp_path)(X), model(X))


def test_saved_again_the_files_are_the_same(saved, tmp_path) -> None:
    _, path = saved
    load_sine(twin.mlp(), path).save_pretrained(tmp_path / "again")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize("first", [LoraConfig, SineLoraConfig])
def test_one_more_adapter_beside_another(saved, first) -> None:
    model, path = saved
    other = get_peft_model(twin.mlp(), first(**CONFIG), adapter_name="first")
    expected = other(X)
    for name in ("second", "third"):
        if name == "second":
            other.load_adapter(path, name)
        else:
            assert load_sine(other, path, name) is other
        assert torch.equal(other(X), expected)
        other.set_adapter(name)
        torch.testing.assert_close(other(X), model(X))
        other.set_adapter("first")
    with pytest.raises(InputError, match="has an adapter 'third'"):
        load_sine(other, path, "third")


def test_several_adapters_in_one_folder(tmp_path) -> None:
    model = twin.adapted()
    model.add_adapter("b", SineLoraConfig(**CONFIG, sine_frequency=77.0))
    model.add_adapter("c", LoraConfig(**CONFIG))
    twin.draw(model, seed=8)
    model.save_pretrained(tmp_path)
    for name, folder in (("default", tmp_path), ("b", tmp_path / "b"), ("c", tmp_path / "c")):
        model.set_adapter(name)
        assert torch.equal(PeftModel.from_pretrained(twin.mlp(), folder, adapter_name="x")(X), model(X))


def test_a_models_whole_state_is_loaded_into_another(saved) -> None:
    model, _ = saved
    other = twin.adapted(seed=7, scaling=2.0, lora_bias=True)
    twin.draw(other, seed=11)
    assert not torch.equal(other(X), model(X))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(X), model(X))
    meta = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other.load_state_dict(meta, assign=True)
    assert torch.equal(other(X), model(X))


def test_an_adapters_state_goes_through_pefts_functions(saved) -> None:
    model, _ = saved
    other = twin.draw(twin.adapted(scaling=2.0, lora_bias=True), seed=11)
    found = set_peft_model_state_dict(other, get_peft_model_state_dict(model))
    assert not found.unexpected_keys
    assert torch.equal(other(X), model(X))


# How somebody loads a folder who never imported skipless. Each must raise.
WITHOUT_US = {
    "from_pretrained": "PeftModel.from_pretrained(base, path)",
    "a configuration": "PeftConfig.from_pretrained(path)",
    "load_adapter": "get_peft_model(base, plain).load_adapter(path, 'other')",
    "into an adapter that is there": "get_peft_model(base, plain).load_adapter(path, 'default')",
    "with a configuration of one's own": "PeftModel.from_pretrained(base, path, config=plain)",
    "a state": "set_peft_model_state_dict(get_peft_model(base, plain), load_peft_weights(path))",
    "mixed": "PeftMixedModel.from_pretrained(base, path)",
    "hot-swapped": "hotswap_adapter(get_peft_model(base, plain), path, 'default')",
    "edited": "edit(); PeftModel.from_pretrained(base, path)",
}
CHILD = """
import json, sys, warnings
warnings.simplefilter("ignore")
path, hidden = sys.argv[1:]
if hidden == "True":  # see hide_torchao
    from peft.tuners.lora import torchao
    torchao.is_torchao_available = lambda: False
import torch
from peft import LoraConfig, PeftConfig, PeftMixedModel, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.utils.hotswap import hotswap_adapter
from peft.utils.save_and_load import load_peft_weights
def edit():
    config = json.load(open(path + "/adapter_config.json"))
    json.dump({**config, "peft_type": "LORA"}, open(path + "/adapter_config.json", "w"))
told = {}
for way, code in WAYS.items():
    base = torch.nn.Sequential(torch.nn.Linear(12, 10), torch.nn.GELU(), torch.nn.Linear(10, 6))
    plain = LoraConfig(r=3, lora_alpha=7, target_modules=["0", "2"])
    try:
        exec(code)
        told[way] = "loaded"
    except Exception as error:
        told[way] = f"{type(error).__name__} {error}"
assert not any(name.startswith("skipless") for name in sys.modules)
print(json.dumps(told))
"""


@pytest.mark.parametrize("bits", [None, 2])
def test_without_us_nothing_is_loaded_in_silence(tmp_path, bits) -> None:
    quantise_(twin.adapted(), bits).save_pretrained(tmp_path)
    command = [sys.executable, "-c", f"WAYS = {WITHOUT_US!r}\n{CHILD}", str(tmp_path), str(twin.hide_torchao())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told.keys() == WITHOUT_US.keys()
    by_name = {way for way, text in told.items() if text.startswith("KeyError") and "import skipless.adapters" in text}
    by_shape = {way for way, text in told.items() if text.startswith("RuntimeError") and "size mismatch" in text}
    assert by_name | by_shape == set(WITHOUT_US), told
    assert {"from_pretrained", "a configuration", "load_adapter", "hot-swapped"} <= by_name
    assert {"into an adapter that is there", "a state", "edited"} <= by_shape


PLAIN_HERE = {
    "into a plain adapter that is there": lambda path: _plain_model().load_adapter(path, "default"),
    "with a plain configuration": lambda path: PeftModel.from_pretrained(twin.mlp(), path, config=LoraConfig(**CONFIG)),
    "its weights alone": lambda path: set_peft_model_state_dict(
        _plain_model(), load_file(path / "adapter_model.safetensors")
    ),
}


def _plain_model() -> Any:
    return get_peft_model(twin.mlp(), LoraConfig(**CONFIG))


@pytest.mark.parametrize("way", PLAIN_HERE)
def test_with_us_it_does_not_go_into_plain_lora_either(tmp_path, way) -> None:
    twin.adapted().save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="size mismatch"):
        PLAIN_HERE[way](tmp_path)


def test_plain_lora_does_not_go_into_a_sine(plain) -> None:
    model = twin.adapted(lora_bias=True)
    with pytest.raises(InputError, match="weights of plain LoRA"):
        model.load_adapter(plain, "default")
    with pytest.raises(InputError, match="of type LORA, without a sine"):
        load_sine(twin.mlp(), plain)


def test_weights_of_another_frequency_or_scaling_are_refused(saved) -> None:
    _, path = saved
    for options in ({"scaling": 2.0, "frequency": 31.0}, {"scaling": 2.5}):
        model = twin.adapted(lora_bias=True, **options)
        with pytest.raises(InputError, match=r"frequency=30, scaling=2, and the adapter has frequency="):
            model.load_adapter(path, "default")


def test_folders_that_lack_something_are_refused(saved, tmp_path) -> None:
    _, path = saved
    with pytest.raises(InputError, match="no adapter_config.json"):
        load_sine(twin.mlp(), tmp_path)
    file = path / "adapter_model.safetensors"
    state = load_file(file)
    save_file({name: tensor for name, tensor in state.items() if ".2.lora_A" not in name}, file)
    with pytest.raises(InputError, match="lacks weights"):
        load_sine(twin.mlp(), path)
    other = _plain_model()
    with pytest.raises(InputError, match=r"lacks weights of the adapter: .*lora_A"):
        load_sine(other, path, "other")
    assert list(other.peft_config) == ["default"]


def test_the_config_file_says_what_it_is(saved) -> None:
    _, path = saved
    found = json.loads((path / "adapter_config.json").read_text())
    assert (found["peft_type"], found["sine_frequency"], found["sine_scaling"]) == (SINE_LORA, 30.0, 2.0)
    config = PeftConfig.from_pretrained(path)
    assert isinstance(config, SineLoraConfig)
    assert (config.sine_frequency, config.sine_scaling, config.r) == (30.0, 2.0, 3)


def _llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=1, vocab_size=31)).eval()


def test_a_language_model_saves_loads_and_generates(tmp_path) -> None:
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    tokens = torch.arange(6)[None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = twin.draw(sine_(get_peft_model(_llama(), config), 30.0)).eval()
        model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(_llama(), tmp_path)
        assert torch.equal(loaded(tokens).logits, model(tokens).logits)
        again = model.generate(input_ids=tokens, max_new_tokens=4, do_sample=False, pad_token_id=0)
        merged = model.merge_and_unload()
        torch.testing.assert_close(merged(tokens).logits, loaded(tokens).logits, rtol=0, atol=1e-4)
        assert torch.equal(merged.generate(input_ids=tokens, max_new_tokens=4, do_sample=False, pad_token_id=0), again)


def test_transformers_own_methods(tmp_path, monkeypatch) -> None:
    """`add_adapter` of transformers' models is right, and saves; their `load_adapter` fails, and PEFT's does not.

    This transformers asks for a PEFT that is not released yet.
    """
    monkeypatch.setattr("transformers.integrations.peft.check_peft_version", lambda *args, **kwargs: None)
    tokens = torch.arange(6)[None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = _llama()
        model.add_adapter(SineLoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, sine_frequency=30.0))
        twin.draw(model)
        assert any(isinstance(module, SineLinear) for module in model.modules())
        model.save_pretrained(tmp_path)
        with pytest.raises(
            (RuntimeError, ImportError)
        ):  # it compares with parameters, whose shapes are LoRA's, and tells in a table
            _llama().load_adapter(str(tmp_path))
        assert torch.equal(load_sine(_llama(), tmp_path)(tokens).logits, model(tokens).logits)


def test_trainer_resumes_a_sine(tmp_path) -> None:
    """It calls save_pretrained with a state of its own, and load_adapter into the adapter that is there."""
    model = twin.adapted()
    model.save_pretrained(tmp_path, state_dict=model.state_dict())
    other = twin.draw(twin.adapted(), seed=11)
    other.load_adapter(str(tmp_path), "default", is_trainable=True)
    assert torch.equal(other(X), model(X))


def test_a_base_without_values_gets_them_all_from_files(tmp_path) -> None:
    """A base on the meta device, as big models are loaded."""
    model = quantise_(twin.adapted(), 3)
    model.save_pretrained(tmp_path)
    with torch.device("meta"):
        base = torch.nn.Sequential(torch.nn.Linear(12, 10), torch.nn.GELU(), torch.nn.Linear(10, 6))
    loaded = load_sine(base, tmp_path, low_cpu_mem_usage=True, torch_device="cpu")
    loaded.load_state_dict(model.state_dict(), assign=True)
    assert torch.equal(loaded(X), model(X))
