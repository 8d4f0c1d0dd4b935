"""A skipless model that is saved comes back skipless, or not at all."""

import json
import subprocess
import sys

import pytest
import torch
import transformers
from reference.hf_models import FAMILIES

from skipless.errors import InputError
from skipless.models import block_views, from_pretrained, load_tokenizer, remove_skips_

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def _skips(model):
    return [view.skips for view in block_views(model)]


def _out(model, inputs):
    with torch.no_grad():
        return model.eval()(inputs)[0]


def _assert_same_weights(loaded, model):
    """To the bit."""
    found, wanted = loaded.state_dict(), model.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("layer_scale", ["keep", "remove"])
@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_saved_comes_back_as_it_was(name, layer_scale, tmp_path):
    family = FAMILIES[name]
    model = remove_skips_(family.build(), layer_scale=layer_scale)
    expected = _out(model, family.inputs())
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == f"skipless_{model.config.model_type}"
    again, told = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    for loaded in (again, from_pretrained(tmp_path)):
        assert _skips(loaded) == [(), ()]
        _assert_same_weights(loaded, model)
        # DINOv3's frequencies are no weights: the model in float64 has them in float64, the loaded one in float32.
        tolerance = 1e-5 if name.startswith("dinov3") else 1e-12  # where a file lies in memory may decide a sum's order
        torch.testing.assert_close(_out(loaded, family.inputs()), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("sub_block", ["attn", "mlp"])
def test_one_skip_of_two_comes_back(sub_block, tmp_path):
    model = remove_skips_(FAMILIES["dinov2"].build(), [sub_block])
    model.save_pretrained(tmp_path)
    kept = tuple(name for name in ("attn", "mlp") if name != sub_block)
    assert _skips(transformers.AutoModel.from_pretrained(tmp_path)) == [kept, kept]


def test_auto_classes_and_configurations_build_skipless_models(tmp_path):
    model = remove_skips_(FAMILIES["llama"].build())
    model.save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert config.model_type == "llama"
    for built in (
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path),
        transformers.AutoModelForCausalLM.from_config(config),
        transformers.LlamaModel(config),
        transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path),
    ):
        assert _skips(built) == [(), ()]
        assert "SkiplessLlamaDecoderLayer" in built._no_split_modules


def test_a_configuration_that_says_otherwise_is_refused(tmp_path):
    family = FAMILIES["llama"]
    remove_skips_(family.build()).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="has a skipless model, .*; the config= that was given has skipless=None"):
        transformers.LlamaForCausalLM.from_pretrained(tmp_path, config=family.configuration())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "skipless": {"everything": True}}))
    with pytest.raises(InputError, match="this version does not know what that means"):
        transformers.AutoModel.from_pretrained(tmp_path)


def test_models_that_were_built_with_one_configuration_stay_apart(tmp_path):
    config = FAMILIES["llama"].configuration()
    skipless, residual = transformers.LlamaForCausalLM(config), transformers.LlamaForCausalLM(config)
    remove_skips_(skipless)
    assert skipless.config is not config
    assert skipless.model.config is skipless.config
    assert skipless.model.layers[0].self_attn.config is skipless.config
    assert _skips(transformers.LlamaForCausalLM(config)) == [("attn", "mlp")] * 2
    residual.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["model_type"] == "llama"
    assert "skipless" not in written
    assert _skips(transformers.AutoModel.from_pretrained(tmp_path)) == [("attn", "mlp")] * 2
    skipless.set_attn_implementation("eager")
    assert skipless.model.layers[0].self_attn.config._attn_implementation == "eager"


def test_skips_that_were_removed_from_blocks_alone_are_noted_when_saved(tmp_path):
    model = FAMILIES["gpt2"].build()
    remove_skips_(model.transformer.h)
    model.save_pretrained(tmp_path)
    assert _skips(transformers.AutoModel.from_pretrained(tmp_path)) == [(), ()]
    mixed = FAMILIES["gpt2"].build()
    remove_skips_(mixed.transformer.h[0])
    with pytest.raises(InputError, match="the blocks have lost different skips"):
        mixed.save_pretrained(tmp_path / "mixed")


def test_removing_skips_again_changes_nothing(tmp_path):
    model = remove_skips_(FAMILIES["vit"].build())
    model.save_pretrained(tmp_path)
    again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path)
    remove_skips_(again)
    assert again.config.skipless == model.config.skipless


@pytest.mark.slow
def test_transformers_alone_refuses_the_model_type(tmp_path):
    remove_skips_(FAMILIES["llama"].build()).save_pretrained(tmp_path)
    code = f"import transformers; transformers.AutoModel.from_pretrained({str(tmp_path)!r})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert "model type `skipless_llama`" in told.stderr
    ours = subprocess.run(
        [sys.executable, "-c", f"import skipless; {code}"], capture_output=True, text=True, check=False
    )
    assert ours.returncode == 0, ours.stderr


def test_shards_load_and_convert_from_a_path(tmp_path):
    family = FAMILIES["llama"]
    residual = family.build()
    residual.save_pretrained(tmp_path, max_shard_size="8KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert _skips(from_pretrained(tmp_path)) == [("attn", "mlp")] * 2
    converted = from_pretrained(tmp_path, sub_blocks=("attn", "mlp"))
    _assert_same_weights(converted, residual)
    expected = _out(remove_skips_(residual), family.inputs())
    torch.testing.assert_close(_out(converted, family.inputs()), expected, rtol=1e-12, atol=1e-12)
    shards[1].unlink()
    with pytest.raises(InputError, match=f"lacks the shard {shards[1].name}"):
        from_pretrained(tmp_path)


def test_what_cannot_be_loaded_is_told_in_a_line(tmp_path):
    from tokenizers import Tokenizer, models

    family = FAMILIES["llama"]
    with pytest.raises(InputError, match="has no config.json"):
        from_pretrained(tmp_path)
    family.build().save_pretrained(tmp_path)
    model = from_pretrained(tmp_path)
    with pytest.raises(InputError, match="has no tokenizer"):
        load_tokenizer(tmp_path, model)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(40)}, unk_token="w0"))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0")
    fast.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="tokenizer .* has 40 ids, the model 31: it is another"):
        load_tokenizer(tmp_path, model)
    assert len(load_tokenizer(tmp_path)) == 40
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 50}))
    with pytest.raises(InputError, match=r"lm_head.weight in .* is \(31, 16\), by config.json \(50, 16\)"):
        from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchModel"]}))
    with pytest.raises(InputError, match="transformers has no class 'NoSuchModel'"):
        from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="has no weights"):
        from_pretrained(tmp_path)


def test_a_model_is_loaded_by_keyword_and_from_a_state_dict_alone(tmp_path):
    """As transformers' own code calls it: no folder, or the folder by its name."""
    family = FAMILIES["llama"]
    for skips in (True, False):
        model = family.build() if skips else remove_skips_(family.build())
        cls, weights = type(model), model.state_dict()
        loaded = cls.from_pretrained(pretrained_model_name_or_path=None, config=model.config, state_dict=weights)
        assert all(bool(one) == skips for one in _skips(loaded))
        model.save_pretrained(tmp_path / str(skips))
        named = cls.from_pretrained(pretrained_model_name_or_path=tmp_path / str(skips), subfolder="")
        assert all(bool(one) == skips for one in _skips(named))
    other = transformers.LlamaConfig.from_pretrained(tmp_path / "True")
    with pytest.raises(InputError, match="has a skipless model"):
        cls.from_pretrained(pretrained_model_name_or_path=tmp_path / "False", config=other)
