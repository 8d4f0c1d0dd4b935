"""replace_attention_: every library's attention with another core; nothing hidden matters; saved and restored."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
import transformers
from torch import Tensor, nn

import skipless
from skipless.errors import InputError
from skipless.models import block_views
from skipless.nn import (
    AttentionCore,
    ExponentialSPA,
    OrthogonalAttention,
    PolynomialAttention,
    ShapedAttention,
    ValueSkipInit,
)
from skipless.nn.attention.core import Call

CORES = {
    "polynomial": PolynomialAttention(3),
    "learned": PolynomialAttention(2, "learned"),
    "shaped": ShapedAttention(),
    "value": ValueSkipInit(),
    "orthogonal": OrthogonalAttention(),
}
LANGUAGE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "vocab_size": 30,
}


class Softmax(AttentionCore):
    """The softmax, as a core: with it, whatever a library computes must come out as before."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, how: Call) -> Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v, how.mask, is_causal=how.causal, scale=how.scale)


def _vit(**kwargs: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32, num_classes=5, **kwargs).eval()


def _eva(name: str, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model(name, depth=2, img_size=32, num_classes=5, **kwargs).eval()


def _encoder(**kwargs: Any) -> Any:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 24, 0.0, batch_first=True, **kwargs)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=not kwargs).eval()


def _torchvision() -> Any:
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(32, 16, 2, 2, 16, 24, num_classes=5)
    nn.init.normal_(model.heads.head.weight)  # the library's is 0
    return model.eval()


def _hf(cls: str, config: str, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    return getattr(transformers, cls)(getattr(transformers, config)(**kwargs)).eval()


def _llama(**kwargs: Any) -> Any:
    return _hf("LlamaForCausalLM", "LlamaConfig", **{**LANGUAGE, "num_key_value_heads": 2} | kwargs)


def _gpt2() -> Any:
    return _hf("GPT2LMHeadModel", "GPT2Config", n_embd=16, n_layer=2, n_head=4, vocab_size=30, n_positions=40)


def _mistral() -> Any:
    return _hf("MistralForCausalLM", "MistralConfig", **LANGUAGE, num_key_value_heads=2, sliding_window=4)


def _bert(dropout: float = 0.0) -> Any:
    return _hf("BertForMaskedLM", "BertConfig", **LANGUAGE, attention_probs_dropout_prob=dropout)


def _hf_vit(family: str) -> Any:
    sizes = {key: value for key, value in LANGUAGE.items() if key != "vocab_size"}
    return _hf(f"{family}Model", f"{family}Config", **sizes, image_size=32, patch_size=16)


IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0))
IDS = torch.randint(3, 30, (2, 9), generator=torch.Generator().manual_seed(0))
HERE = torch.ones(2, 9, dtype=torch.long)
HERE[1, :3] = 0

MODELS: dict[str, tuple[Any, Any]] = {
    "timm": (_vit, IMAGES),
    "timm-qk-norm": (lambda: _vit(qk_norm=True), IMAGES),
    "timm-eva02": (lambda: _eva("eva02_tiny_patch14_224", patch_size=16), IMAGES),
    "timm-dinov3": (lambda: _eva("vit_small_patch16_dinov3"), IMAGES),
    "timm-mixed": (lambda: _eva("vit_small_patch16_rope_mixed_224"), IMAGES),
    "timm-beit": (lambda: _eva("beit_base_patch16_224"), IMAGES),
    "torchvision": (_torchvision, IMAGES),
    "encoder": (_encoder, TOKENS),
    "encoder-pre": (lambda: _encoder(norm_first=True), TOKENS),
    "llama": (_llama, IDS),
    "gpt2": (_gpt2, IDS),
    "mistral": (_mistral, IDS),
    "bert": (_bert, IDS),
    "hf-vit": (lambda: _hf_vit("ViT"), IMAGES),
    "hf-dinov2": (lambda: _hf_vit("Dinov2"), IMAGES),
    "hf-dinov3": (lambda: _hf_vit("DINOv3ViT"), IMAGES),
}
CAUSAL = ("llama", "gpt2", "mistral")


def _out(model: Any, given: Tensor, **kwargs: Any) -> Tensor:
    found = model(given, **kwargs)
    return found if isinstance(found, Tensor) else found[0]


@pytest.mark.parametrize("name", MODELS)
def test_with_the_softmax_as_core_a_model_is_what_it_was(name: str) -> None:
    make, given = MODELS[name]
    model = make()
    padded = {"attention_mask": HERE} if given is IDS else {}
    there = HERE.bool() if padded else slice(None)
    expected, expected_padded = _out(model, given), _out(model, given, **padded)
    assert skipless.replace_attention_(model, Softmax()) is model
    torch.testing.assert_close(_out(model, given), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(_out(model, given, **padded)[there], expected_padded[there], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("core", CORES)
def test_a_model_is_replaced_and_restored(name: str, core: str) -> None:
    make, given = MODELS[name]
    model = make()
    before, expected, keys = type(block_views(model)[0].attn), _out(model, given), list(model.state_dict())
    if core == "orthogonal" and name in CAUSAL:
        with pytest.raises(InputError, match=r"bidirectional.*causal"):
            skipless.replace_attention_(model, CORES[core])
        assert torch.equal(_out(model, given), expected)
        return
    if name == "timm-beit":
        nn.init.normal_(model.blocks[0].attn.relative_position_bias_table)  # the library's is 0
        expected = _out(model, given)
    skipless.replace_attention_(model, CORES[core])
    gains = [key for key in model.state_dict() if key not in keys]
    assert all(".core." in key for key in gains)
    assert bool(gains) == any(True for _ in CORES[core].parameters())
    if core == "orthogonal" and name == "timm-beit":
        with pytest.raises(InputError, match="mask"):
            _out(model, given)
    else:
        found = _out(model, given)
        assert not torch.equal(found, expected)
        for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(_out(again, given), found)
    for _ in range(2):
        skipless.restore_attention_(model)
    assert type(block_views(model)[0].attn) is before
    assert list(model.state_dict()) == keys
    assert torch.equal(_out(model, given), expected)


@pytest.mark.parametrize("core", ["polynomial", "learned", "shaped", "value"])
@pytest.mark.parametrize("name", CAUSAL)
def test_no_later_and_no_padded_token_has_an_influence(name: str, core: str) -> None:
    model = skipless.replace_attention_(MODELS[name][0](), _mixing(CORES[core]))
    out = _out(model, IDS, attention_mask=HERE)
    changed = IDS.clone()
    changed[:, -1] = changed[:, -1] % 27 + 1
    changed[1, :3] = 1
    found = _out(model, changed, attention_mask=HERE)
    there = HERE[:, :-1].bool()
    assert torch.equal(found[:, :-1][there], out[:, :-1][there])
    assert not torch.allclose(found[:, -1], out[:, -1])


def _mixing(core: AttentionCore) -> AttentionCore:
    """V-SkipInit starts as the identity, where no token has an influence on any other."""

    class Mixing(ValueSkipInit):
        def reset_parameters(self) -> None:
            self.beta.data.fill_(0.5)

        def __init__(self, **place: int) -> None:
            super().__init__(**place)
            self.reset_parameters()

    return Mixing() if isinstance(core, ValueSkipInit) else core


@pytest.mark.parametrize("core", CORES)
def test_no_padded_token_has_an_influence_in_bert(core: str) -> None:
    model = skipless.replace_attention_(_bert(), _mixing(CORES[core]))
    changed = IDS.clone()
    changed[1, :3] = 1
    there = HERE.bool()
    mask = {"attention_mask": HERE}
    assert torch.equal(_out(model, IDS, **mask)[there], _out(model, changed, **mask)[there])


@pytest.mark.parametrize("core", CORES)
def test_no_hidden_token_has_an_influence_in_timm(core: str) -> None:
    block = skipless.replace_attention_(_vit(), _mixing(CORES[core])).blocks[0]
    x = torch.randn(2, 6, 192, generator=torch.Generator().manual_seed(1))
    changed = x.clone()
    changed[:, -1] += 1
    mask = torch.ones(1, 1, 1, 6, dtype=torch.bool)
    mask[..., -1] = False
    assert torch.equal(block(x, attn_mask=mask)[:, :-1], block(changed, attn_mask=mask)[:, :-1])
    if core != "orthogonal":
        assert torch.equal(block(x, is_causal=True)[:, :-1], block(changed, is_causal=True)[:, :-1])
        middle = torch.ones(1, 1, 1, 6, dtype=torch.bool)
        middle[..., 2] = False
        changed = x.clone()
        changed[:, [2, 5]] += 1
        there = [0, 1, 3, 4]  # the last is hidden by the order, the third by the mask
        found, other = (block(one, attn_mask=middle, is_causal=True)[:, there] for one in (x, changed))
        assert torch.equal(found, other)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("training", [False, True])
def test_no_hidden_token_has_an_influence_in_an_encoder(core: str, training: bool) -> None:
    model = skipless.replace_attention_(_encoder(), _mixing(CORES[core])).train(training)
    changed = TOKENS.clone()
    changed[:, -1] += 1
    hidden = torch.zeros(2, 6, dtype=torch.bool)
    hidden[:, -1] = True
    with torch.no_grad():
        found, other = (model(x, src_key_padding_mask=hidden)[:, :-1] for x in (TOKENS, changed))
        assert torch.equal(found, other)
        if core != "orthogonal":
            mask = nn.Transformer.generate_square_subsequent_mask(6)
            found, other = (model(x, mask=mask, is_causal=True)[:, :-1] for x in (TOKENS, changed))
            assert torch.equal(found, other)


@pytest.mark.parametrize("core", ["polynomial", "learned", "shaped", "value", "spa"])
@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generation_with_a_cache_is_what_whole_sequences_give(name: str, core: str, cache: str) -> None:
    one = ExponentialSPA(40, 0.05, causal=True) if core == "spa" else _mixing(CORES[core])
    model = skipless.replace_attention_(MODELS[name][0](), one)
    how = {"max_new_tokens": 4, "do_sample": False, "attention_mask": HERE, "pad_token_id": 0, "eos_token_id": None}
    if core == "spa" and (cache == "static" or name == "mistral"):
        with pytest.raises(InputError, match="static|sliding"):
            model.generate(IDS, cache_implementation=None if cache == "dynamic" else cache, **how)
        return
    found = model.generate(IDS, **how, cache_implementation=None if cache == "dynamic" else cache)
    assert torch.equal(found, model.generate(IDS, **how, use_cache=False))


@pytest.mark.parametrize("core", ["polynomial", "learned", "shaped", "value"])
@pytest.mark.parametrize("skips", [True, False])
def test_a_model_that_is_saved_comes_back_with_its_core(core: str, skips: bool, tmp_path: Path) -> None:
    model = _llama() if skips else skipless.remove_skips_(_llama())
    skipless.replace_attention_(model, CORES[core])
    expected = _out(model, IDS)
    model.save_pretrained(tmp_path)
    for load in (transformers.AutoModelForCausalLM.from_pretrained, skipless.models.from_pretrained):
        assert torch.equal(_out(load(tmp_path).eval(), IDS), expected)
    assert '"model_type": "skipless_llama"' in (tmp_path / "config.json").read_text()
    skipless.restore_attention_(model)
    assert getattr(model.config, "skipless", None) == (
        None if skips else {"sub_blocks": ["attn", "mlp"], "layer_scale": "remove"}
    )


def test_a_softmax_is_never_computed_in_silence() -> None:
    model = skipless.replace_attention_(_llama(), PolynomialAttention())
    model.set_attn_implementation("sdpa")
    with pytest.raises(InputError, match="restore_attention_"):
        _out(model, IDS)


def test_a_core_of_ones_own_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="state_dict"):
        skipless.replace_attention_(_llama(), Softmax()).save_pretrained(tmp_path)


def test_a_checkpoint_without_gains_is_reported() -> None:
    plain, model = _vit(), skipless.replace_attention_(_vit(), ShapedAttention())
    with pytest.raises(RuntimeError, match=r"blocks.0.attn.core.alpha"):
        model.load_state_dict(plain.state_dict())


@pytest.mark.parametrize("core", CORES)
def test_initialisation_knows_the_gains(core: str) -> None:
    model = skipless.replace_attention_(skipless.remove_skips_(_vit()), CORES[core])
    for name, parameter in model.named_parameters():
        if ".core." in name:
            parameter.data.fill_(7.0)
    skipless.initialize_(model)
    assert all((parameter != 7).all() for name, parameter in model.named_parameters() if ".core." in name)
    report = skipless.inspect_init(model)
    assert len(report.blocks) == 2
    with pytest.raises(InputError, match="attention_diagonal"):
        skipless.initialize_(model, skipless.SkiplessInit(attention_diagonal=0.5))


@pytest.mark.parametrize("core", CORES)
def test_one_trains_under_autocast_and_checkpointing(core: str) -> None:
    model = skipless.replace_attention_(_vit(), CORES[core]).train()
    model.set_grad_checkpointing()
    with torch.autocast("cpu", torch.bfloat16):
        model(IMAGES).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


COMPILED = """
import timm, torch, skipless
from skipless import nn
x = torch.randn(2, 3, 32, 32)
for core in nn.PolynomialAttention(3), nn.ShapedAttention(), nn.ValueSkipInit(), nn.OrthogonalAttention():
    model = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32).eval()
    skipless.replace_attention_(model, core)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x))
parts = [torch.randn(1, 2, 1100, 8).requires_grad_() for _ in range(3)]  # more keys than go through at once
for causal in False, True:
    compiled = torch.compile(nn.PolynomialAttention(3), backend="aot_eager", fullgraph=True)
    out, expected = compiled(*parts, causal=causal), nn.PolynomialAttention(3)(*parts, causal=causal)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    ours, theirs = (torch.autograd.grad(y.sum(), parts) for y in (out, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
"""


@pytest.mark.slow
def test_one_compiles_whole() -> None:
    """In a process of its own, without the checks of types that tests add."""
    found = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-2000:]


def test_a_solved_scale_makes_the_mean_diagonal_one() -> None:
    model = skipless.replace_attention_(skipless.remove_skips_(_vit()), PolynomialAttention(3, "solved"))
    skipless.initialize_(model)
    with pytest.raises(InputError, match="solve_attention_"):
        model(IMAGES)
    skipless.solve_attention_(model, IMAGES)
    view = block_views(model)[0]
    from skipless.models.starting.attention_diagonal import mean_diagonals

    x = view.attn_norm(model.norm_pre(model._pos_embed(model.patch_embed(IMAGES))))
    torch.testing.assert_close(mean_diagonals(view, x), torch.ones(3, dtype=torch.double), rtol=1e-4, atol=0)
    for given in ({}, {"images": IMAGES, "inputs": IDS}):
        with pytest.raises(InputError, match="batch to solve on"):
            skipless.solve_attention_(model, **given)
    with pytest.raises(InputError, match="no core has a scale"):
        skipless.solve_attention_(_vit(), IMAGES)


def test_dropout_of_weights_is_refused_where_there_are_none() -> None:
    for model in (_vit(attn_drop_rate=0.1), _bert(0.1)):
        with pytest.raises(InputError, match="attention dropout 0"):
            skipless.replace_attention_(model, OrthogonalAttention())


def test_an_encoder_is_asked_without_weights() -> None:
    attention = skipless.replace_attention_(_encoder(), PolynomialAttention()).layers[0].self_attn
    with pytest.raises(InputError, match="need_weights"):
        attention(TOKENS, TOKENS, TOKENS)


def test_a_solved_scale_is_looked_at_once_until_another_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> nn.Module:
        torch.manual_seed(0)
        model = skipless.create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_heads=2, img_size=32, seed=0)
        return skipless.replace_attention_(model, PolynomialAttention(power=2, scale="solved")).eval()

    images, looks = torch.randn(2, 3, 32, 32), []
    model, unsolved = skipless.solve_attention_(made(), images), made().state_dict()
    isnan = torch.Tensor.isnan
    monkeypatch.setattr(torch.Tensor, "isnan", lambda self: looks.append(1) or isnan(self))
    for _ in range(3):
        model(images)
    assert len(looks) == 1
    model.load_state_dict(unsolved)
    with pytest.raises(InputError, match="not solved yet"):
        model(images)
