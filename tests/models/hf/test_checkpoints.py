"""A checkpoint in the format of a published small Llama-type model, and what is told of one that is spoilt."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from reference.checkpoints import write_checkpoint

from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.models import (
    block_views,
    from_pretrained,
    initialize_,
    inspect_init,
    load_tokenizer,
    remove_skips_,
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("published") / "llama")


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "llama"))


def test_it_has_the_format(published: Path) -> None:
    index = json.loads((published / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} <= {file.name for file in published.iterdir()}


def test_it_loads_converts_and_starts_anew(published: Path) -> None:
    plain, tokenizer = from_pretrained(published), load_tokenizer(published)
    ids = tokenizer("a text", return_tensors="pt").input_ids
    assert ids[0, 0] == 1
    original = transformers.LlamaForCausalLM.from_pretrained(published)
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, original(ids).logits)
    converted = remove_skips_(plain)
    skipless = from_pretrained(published, sub_blocks=("attn", "mlp"))
    with torch.no_grad():
        torch.testing.assert_close(skipless(ids).logits, converted(ids).logits)
        assert not torch.allclose(skipless(ids).logits, original(ids).logits)
    initialize_(skipless, SkiplessInit(0.0, 3.0), generator=torch.Generator().manual_seed(0))
    assert min(inspect_init(skipless, inputs=ids).attention_diagonal) > 0.85
    assert all(not view.skips for view in block_views(skipless))


def _index(folder: Path) -> Path:
    return folder / "model.safetensors.index.json"


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*.safetensors"))


def _lose(folder: Path) -> None:
    _shards(folder)[1].unlink()


def _cut(folder: Path) -> None:
    file = _shards(folder)[1]
    file.write_bytes(file.read_bytes()[:-100])


def _scribble(folder: Path) -> None:
    _shards(folder)[1].write_bytes(b"no tensors")


def _forget(folder: Path) -> None:
    held = json.loads(_index(folder).read_text())
    del held["weight_map"]["model.layers.1.mlp.up_proj.weight"]
    _index(folder).write_text(json.dumps(held))
    # The tensor is in no shard either: what an index forgets may still be read by newer versions.
    from safetensors.torch import load_file, save_file

    for file in _shards(folder):
        tensors = load_file(file)
        tensors.pop("model.layers.1.mlp.up_proj.weight", None)
        save_file(tensors, file, metadata={"format": "pt"})


def _misplace(folder: Path) -> None:
    held = json.loads(_index(folder).read_text())
    where = held["weight_map"]["model.layers.1.mlp.up_proj.weight"]
    held["weight_map"]["model.layers.1.mlp.up_proj.weight"] = next(
        file.name for file in _shards(folder) if file.name != where
    )
    _index(folder).write_text(json.dumps(held))


def _no_map(folder: Path) -> None:
    _index(folder).write_text("{}")


def _no_json(folder: Path) -> None:
    _index(folder).write_text("{")


def _escape(folder: Path) -> None:
    held = json.loads(_index(folder).read_text())
    held["weight_map"]["model.norm.weight"] = "../elsewhere.safetensors"
    _index(folder).write_text(json.dumps(held))


def _no_weights(folder: Path) -> None:
    for file in (*_shards(folder), _index(folder)):
        file.unlink()


def _other_vocabulary(folder: Path) -> None:
    held = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**held, "vocab_size": 310}))


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_lose, "lacks the shard model-00002-of-"),
        (_cut, "safetensors is corrupt or cut off"),
        (_scribble, "safetensors is corrupt or cut off"),
        (_forget, "lack model.layers.1.mlp.up_proj.weight"),
        (_misplace, "says that model.layers.1.mlp.up_proj.weight is in model-"),
        (_no_map, "model.safetensors.index.json has no weight_map"),
        (_no_json, "model.safetensors.index.json is no JSON"),
        (_escape, "names the shard '../elsewhere.safetensors', which is no file beside it"),
        (_no_weights, "has no weights (model.safetensors)"),
        (_other_vocabulary, "another model's weights, or of another vocabulary"),
        (_no_config, "has no config.json"),
    ],
)
def test_what_is_missing_or_spoilt_is_told_in_a_line(spoil: Callable[[Path], None], message: str, folder: Path) -> None:
    spoil(folder)
    with pytest.raises(InputError) as told:
        from_pretrained(folder)
    assert message in str(told.value)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 400


def _no_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def _cut_tokenizer(folder: Path) -> None:
    file = folder / "tokenizer.json"
    file.write_text(file.read_text()[:-100])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(_no_tokenizer, "has no tokenizer (tokenizer.json)"), (_cut_tokenizer, "cannot be read")],
)
def test_tokenizers_that_cannot_be_read_are_told_in_a_line(
    spoil: Callable[[Path], None], message: str, folder: Path
) -> None:
    spoil(folder)
    with pytest.raises(InputError) as told:
        load_tokenizer(folder)
    assert message in str(told.value)
    assert "\n" not in str(told.value)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    small = write_checkpoint(tmp_path / "small", vocabulary=200)
    with pytest.raises(InputError, match="has 259 ids, the model 200: it is another"):
        load_tokenizer(small, from_pretrained(small))
