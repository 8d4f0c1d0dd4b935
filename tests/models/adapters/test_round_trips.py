"""What users do with a model goes on working once its skips are gone: files, copies, compilers, checkpointing."""

import copy
import inspect
import pickle

import pytest
import torch
from reference.vision_models import VITS, encoder, images
from torch import nn
from torch.utils.checkpoint import checkpoint

from skipless.models import block_views, initialize_, remove_skips_
from skipless.models.adapters.torch_encoder import SkiplessEncoderLayer
from skipless.models.adapters.torchvision_vit import SkiplessEncoderBlock
from skipless.models.vit_view import find_vit

ENCODERS = {
    f"{'pre' if norm_first else 'post'}-norm, {'batch' if batch_first else 'sequence'} first": (norm_first, batch_first)
    for norm_first in (True, False)
    for batch_first in (True, False)
}


def built(family: str) -> nn.Module:
    torch.manual_seed(0)
    if family in ENCODERS:
        norm_first, batch_first = ENCODERS[family]
        return encoder(norm_first=norm_first, batch_first=batch_first).eval()
    return VITS[family]().eval()


def ready(family: str) -> nn.Module:
    return initialize_(remove_skips_(built(family)), generator=torch.Generator().manual_seed(0))


def inputs(family: str) -> torch.Tensor:
    return torch.randn(2, 7, 24) if family in ENCODERS else images().float()


FAMILIES = (*VITS, *ENCODERS)


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_stay_and_load_both_ways(family: str) -> None:
    residual = built(family)
    before = {name: id(parameter) for name, parameter in residual.named_parameters()}
    keys = list(residual.state_dict())
    skipless = remove_skips_(residual, layer_scale="keep")
    assert {name: id(parameter) for name, parameter in skipless.named_parameters()} == before
    assert list(skipless.state_dict()) == keys
    fresh = built(family)
    assert fresh.load_state_dict(skipless.state_dict())
    assert skipless.load_state_dict(fresh.state_dict())


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_scale_goes_or_stays_and_nothing_else_does(family: str) -> None:
    model = built(family)
    scales = [f"{view.name}.{name}" for view in block_views(model) for name in view.layer_scales]
    keys = set(model.state_dict())
    assert keys - set(remove_skips_(model).state_dict()) == set(scales)
    assert not any(view.layer_scales for view in block_views(model))
    half = remove_skips_(built(family), ("attn",))
    assert sum(len(view.layer_scales) for view in block_views(half)) == len(scales) / 2


@pytest.mark.parametrize("family", FAMILIES)
def test_copies_pickles_and_removing_twice(family: str) -> None:
    model = remove_skips_(ready(family), ("mlp",))
    x = inputs(family)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), remove_skips_(copy.deepcopy(model))):
        assert {view.skips for view in block_views(twin)} == {()}
        torch.testing.assert_close(twin(x), model(x))
    parted = remove_skips_(remove_skips_(built(family), ("mlp",)), ("attn",))
    parted.load_state_dict(model.state_dict())
    torch.testing.assert_close(parted(x), model(x))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_compiles_whole_and_runs_under_autocast(family: str) -> None:
    model, x = ready(family), inputs(family)
    torch.compiler.reset()
    expected = model(x)
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), expected)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(x).float()
    assert half.isfinite().all()
    torch.testing.assert_close(half, expected, rtol=0.2, atol=0.2)


def gradients(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    model(x).square().mean().backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointed_gradients_are_the_same(family: str) -> None:
    """By timm's switch, and elsewhere by `torch.utils.checkpoint` around every block, as users write it."""
    model, x = ready(family), inputs(family)
    plain = gradients(model.train(), x)
    if hasattr(model, "set_grad_checkpointing"):
        model.set_grad_checkpointing(True)
    else:
        for view in block_views(model):
            view.block.forward = _recomputed(view.block.forward)
    for one, other in zip(plain, gradients(model, x), strict=True):
        torch.testing.assert_close(one, other)
    assert len(plain) > 2 * sum(len(view.maps) for view in block_views(model)) - 8


def _recomputed(forward):
    return lambda *args, **kwargs: checkpoint(forward, *args, use_reentrant=False, **kwargs)


@pytest.mark.parametrize("family", VITS)
def test_fused_attention_is_the_plain_one(family: str) -> None:
    model, x = ready(family), inputs(family)
    fused = model(x)
    if family == "torchvision":
        with torch.no_grad():  # MHA then takes its fast path
            torch.testing.assert_close(model(x), fused, rtol=1e-4, atol=1e-5)
        return
    for view in block_views(model):
        assert view.attn.fused_attn
        view.attn.fused_attn = False
    torch.testing.assert_close(model(x), fused, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ENCODERS)
def test_training_and_evaluation_compute_the_same(family: str) -> None:
    """The library's fused layer, which has the sums inside, is taken in evaluation without gradients."""
    model, x = ready(family), inputs(family)
    trained = model.train()(x)
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(x), trained, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("norm_first", [True, False])
def test_padding_takes_nested_tensors_in_evaluation(norm_first: bool) -> None:
    torch.manual_seed(0)
    model = _even(norm_first)
    x, padding = torch.randn(3, 6, 24), torch.zeros(3, 6, dtype=torch.bool)
    padding[1, 4:] = padding[2, 2:] = True
    trained = model.train()(x, src_key_padding_mask=padding)
    with torch.inference_mode():
        evaluated = model.eval()(x, src_key_padding_mask=padding)
    assert norm_first or not evaluated[padding].any(), "the library has not nested the tensors"
    torch.testing.assert_close(evaluated[~padding], trained[~padding], rtol=1e-4, atol=1e-4)


def _even(norm_first: bool) -> nn.Module:
    """With an even number of heads, which nested tensors ask for."""
    model = encoder(norm_first=norm_first, batch_first=True, nhead=4)
    return initialize_(remove_skips_(model), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_causal_mask_reaches_the_attention(norm_first: bool) -> None:
    model = _even(norm_first).eval()
    x, mask = torch.randn(1, 6, 24), nn.Transformer.generate_square_subsequent_mask(6)
    other = torch.cat([x[:, :5], torch.randn(1, 1, 24)], 1)
    torch.testing.assert_close(model(x, mask, is_causal=True)[:, :5], model(other, mask, is_causal=True)[:, :5])
    assert not torch.allclose(model(x)[:, :5], model(other)[:, :5])


def test_the_layers_of_an_encoder_start_equal_and_are_drawn_apart() -> None:
    model = encoder(norm_first=True, batch_first=True)
    first, second = (view.w_q.clone() for view in block_views(model))
    assert torch.equal(first, second)
    first, second = (view.w_q for view in block_views(initialize_(model)))
    assert not torch.allclose(first, second, atol=1e-2)


@pytest.fixture
def as_users_have_it(monkeypatch) -> None:
    """Without the type checker of these tests around the forward: tracing and scripting see the source."""
    for kind in (SkiplessEncoderBlock, SkiplessEncoderLayer):
        monkeypatch.setattr(kind, "forward", inspect.unwrap(kind.forward))


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("cut", [("attn", "mlp"), ("attn",)])
def test_torchvisions_tools_take_its_model(cut) -> None:
    from torchvision.models.feature_extraction import create_feature_extractor

    model, x = initialize_(remove_skips_(built("torchvision"), cut)).eval(), images().float()
    nn.init.normal_(model.heads[0].weight)
    expected = model(x)
    with pytest.warns(FutureWarning, match="jit.script"):
        scripted = torch.jit.script(model)
    torch.testing.assert_close(scripted(x), expected)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), expected)
    extractor = create_feature_extractor(model, {"encoder.layers.encoder_layer_1": "last"})
    tokens = find_vit(model).final_norm(extractor(x)["last"])
    torch.testing.assert_close(model.heads(tokens[:, 0]), expected)
