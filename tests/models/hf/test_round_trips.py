"""What people do with Hugging Face's models, on skipless ones of every family."""

import copy
import io
import itertools
import pickle

import pytest
import torch
from reference.hf_models import FAMILIES
from torch import nn

from skipless.errors import InputError
from skipless.models import block_views, remove_skips_

GENERATING = [name for name, family in FAMILIES.items() if family.generates]


def _skipless(name, **more):
    return remove_skips_(FAMILIES[name].build(**more))


def _out(model, inputs):
    with torch.no_grad():
        found = model(inputs)
    return found.logits if hasattr(found, "logits") else found.last_hidden_state


@pytest.mark.parametrize("name", FAMILIES)
def test_sdpa_is_eager(name):
    model, inputs = _skipless(name), FAMILIES[name].inputs()
    model.set_attn_implementation("sdpa")
    expected = _out(model, inputs)
    model.set_attn_implementation("eager")
    torch.testing.assert_close(_out(model, inputs), expected, rtol=1e-4, atol=1e-5)  # some softmaxes are in float32


@pytest.mark.parametrize("name", FAMILIES)
def test_copies_and_pickles_are_skipless(name):
    model, inputs = _skipless(name), FAMILIES[name].inputs()
    expected = _out(model, inputs)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    again = (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False))
    for other in again:
        assert torch.equal(_out(other, inputs), expected)
        assert all(view.skips == () for view in block_views(other))


_QUICKLY_COMPILED = ("llama", "vit", "bert")


@pytest.mark.parametrize(
    "name", [name if name in _QUICKLY_COMPILED else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_a_compiled_model_has_no_graph_break(name, unchecked):  # the compiler cannot trace the type checker
    model, inputs = _skipless(name), FAMILIES[name].inputs()
    expected = _out(model, inputs)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(_out(compiled, inputs), expected, rtol=1e-12, atol=1e-12)
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_(en|dis)able` is deprecated:FutureWarning")
@pytest.mark.parametrize("first", ["skips", "checkpointing"])
@pytest.mark.parametrize("name", FAMILIES)
def test_checkpointing_runs_blocks_twice_and_changes_no_gradient(name, first):
    family = FAMILIES[name]
    model = family.build()
    if first == "checkpointing":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    remove_skips_(model)
    inputs = family.inputs()

    def gradients():
        model.train()
        torch.manual_seed(0)  # DINOv3 jitters its rotary positions in training
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        model.zero_grad()
        found = model(inputs)
        (found.logits if hasattr(found, "logits") else found.last_hidden_state).square().sum().backward()
        return [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()]

    called = []
    block = block_views(model)[0]
    where = block.attn_norm if not block.post_norm else block.mlp_norm
    where.register_forward_pre_hook(lambda *_: called.append(1))
    if first == "skips":
        expected = gradients()
        assert len(called) == 1
        model.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_disable()
        expected = gradients()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    called.clear()
    found = gradients()
    assert len(called) == 2
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", FAMILIES)
def test_autocast_runs(name):
    model = _skipless(name, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = _out(model, FAMILIES[name].inputs(dtype=torch.float32))
    assert found.isfinite().all()


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("name", GENERATING)
def test_generation_with_a_cache_is_that_without(name, cache):
    model, inputs = _skipless(name), FAMILIES[name].inputs(count=5)
    given = {"attention_mask": torch.ones_like(inputs), "max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    plain = model.generate(inputs, use_cache=False, **given)
    cached = model.generate(inputs, use_cache=True, cache_implementation=cache, **given)
    assert torch.equal(plain, cached)
    by_hand = inputs
    for _ in range(6):
        by_hand = torch.cat((by_hand, _out(model, by_hand)[:, -1:].argmax(-1)), 1)
    assert torch.equal(plain, by_hand)


@pytest.mark.parametrize("name", GENERATING)
def test_the_cache_of_old_names_is_not_lost(name):
    """A cache by `past_key_values` and one by `cache` are the same to a block that passes on what it is given."""
    from transformers import DynamicCache

    model, ids = _skipless(name), FAMILIES[name].inputs(count=6)
    whole = _out(model, ids)
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(ids[:, :4], cache=cache, use_cache=True)
        last = model(ids[:, 4:], cache=cache, use_cache=True).logits
    torch.testing.assert_close(last, whole[:, 4:], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_are_kept_whole_by_their_new_name(name):
    model = _skipless(name)
    classes = {type(view.block).__name__ for view in block_views(model)}
    assert classes <= set(model._no_split_modules)
    if name != "bert":
        assert all(one.startswith("Skipless") for one in classes)
        assert not {one.removeprefix("Skipless") for one in classes} & set(model._no_split_modules)


@pytest.mark.filterwarnings("ignore:Current model requires:UserWarning")
def test_accelerate_puts_a_block_on_one_device():
    from accelerate import infer_auto_device_map

    model = _skipless("llama", dtype=torch.float32, num_hidden_layers=4)
    sizes = {"cpu": 2**20}
    for memory in itertools.chain(range(2000, 30000, 1500)):
        devices = infer_auto_device_map(
            model, {0: memory, 1: memory, **sizes}, no_split_module_classes=list(model._no_split_modules)
        )
        assert not any(key.count(".") > 2 for key in devices), devices


def test_hidden_states_and_attentions_are_all_there():
    model = _skipless("llama")
    model.set_attn_implementation("eager")
    found = model(FAMILIES["llama"].inputs(), output_hidden_states=True, output_attentions=True)
    assert len(found.hidden_states) == 3
    assert len(found.attentions) == 2


@pytest.mark.parametrize(
    ("name", "sizes", "told"),
    [
        ("gpt2", {"resid_pdrop": 0.1}, "transformer.h.0 has dropout 0.1: without that skip .* resid_pdrop=0"),
        ("bert", {"hidden_dropout_prob": 0.1}, "bert.encoder.layer.0 has dropout 0.1: .* hidden_dropout_prob=0"),
        ("vit", {"hidden_dropout_prob": 0.1}, "vit.layers.0 has dropout 0.1"),
        ("dinov2", {"drop_path_rate": 0.2}, "has drop path 0.2: .* drop_path_rate=0"),
        ("dinov3", {"drop_path_rate": 0.2}, "has drop path 0.2"),
        ("bert", {"is_decoder": True, "add_cross_attention": True}, "has cross-attention, a third skip"),
        ("gpt2", {"add_cross_attention": True}, "has cross-attention, a third skip"),
    ],
)
def test_skips_that_cannot_go_are_refused(name, sizes, told):
    model = FAMILIES[name].build(**sizes)
    with pytest.raises(InputError, match=told):
        remove_skips_(model)
    assert all(view.skips == ("attn", "mlp") for view in block_views(model))
    assert not hasattr(model.config, "skipless")


def test_dropout_beside_a_skip_that_stays_is_no_matter():
    model = FAMILIES["gpt2"].build()
    model.transformer.h[0].mlp.dropout.p = 0.1
    assert [view.skips for view in block_views(remove_skips_(model, ["attn"]))] == [("mlp",), ("mlp",)]
    with pytest.raises(InputError, match="dropout"):
        remove_skips_(model, ["mlp"])


class _Quantised(nn.Linear):
    """As quantisation makes one."""


def test_maps_that_are_not_plain_are_refused():
    model = FAMILIES["llama"].build()
    model.model.layers[1].mlp.up_proj = _Quantised(16, 24)
    with pytest.raises(InputError, match="model.layers.1 has a linear map `_Quantised`, not a plain one"):
        remove_skips_(model)
    wrapped = nn.Module()
    wrapped.base_layer = nn.Linear(16, 24)
    model.model.layers[1].mlp.up_proj = wrapped
    with pytest.raises(InputError, match="which an adapter such as LoRA's wraps"):
        remove_skips_(model)


def test_a_block_of_another_class_is_refused():
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    class Own(LlamaDecoderLayer):
        pass

    model = FAMILIES["llama"].build()
    model.model.layers[1].__class__ = Own
    with pytest.raises(InputError, match="no adapter for the block `Own` at model.layers.1"):
        remove_skips_(model)
    model.model.layers[1] = nn.Identity()
    with pytest.raises(InputError, match="no adapter for the block `Identity` at model.layers.1"):
        remove_skips_(model)


def test_sharded_blocks_are_seen_through_and_keep_their_skips():
    """FSDP2 gives a block a class `FSDP<Class>`; here it is made as `fully_shard` makes it, without processes."""
    from torch.distributed.fsdp import FSDPModule

    model = FAMILIES["llama"].build()
    for layer in model.model.layers:
        layer.__class__ = type(f"FSDP{type(layer).__name__}", (FSDPModule, type(layer)), {})
    assert [view.skips for view in block_views(model)] == [("attn", "mlp")] * 2
    with pytest.raises(InputError, match="sharded by fully_shard: remove skips before that"):
        remove_skips_(model)
