"""set_skip_gains_: x <- a x + f(x) in every library, whatever the block is; kept by files, copies and instruments."""

import copy
import inspect
import itertools
import math
import pickle
from typing import Any

import pytest
import torch
from reference.hf_models import FAMILIES
from reference.vision_models import VITS, encoder, images, randomised
from torch import Tensor, nn

from skipless.conditioning import attn_jacobian, mlp_jacobian
from skipless.errors import InputError
from skipless.evaluators.features.store_builder import weights_hash
from skipless.evaluators.quantisation.statistics.sites import run_block
from skipless.models import block_views, create_model, decayed_gains, remove_skips_, set_skip_gains_
from skipless.models.adapters.torch_encoder import SkiplessEncoderLayer
from skipless.models.adapters.torchvision_vit import SkiplessEncoderBlock
from skipless.models.skip_gains import zero_branches_
from skipless.models.starting.first_tokens import first_tokens
from skipless.models.vit_view import find_vit

ENCODERS = {"pre-norm": True, "post-norm": False}
NAMES = (*VITS, *ENCODERS, *(f"hf {name}" for name in FAMILIES))


def built(name: str) -> Any:
    if name in ENCODERS:
        return randomised(encoder(norm_first=ENCODERS[name], batch_first=True))
    if name.startswith("hf "):
        return FAMILIES[name[3:]].build()
    torch.manual_seed(0)
    return randomised(VITS[name]())


def given(name: str) -> Tensor:
    if name in ENCODERS:
        return torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return FAMILIES[name[3:]].inputs() if name.startswith("hf ") else images()


def out(name: str, model: Any) -> Tensor:
    with torch.no_grad():
        y = model(given(name))
    return y if isinstance(y, Tensor) else y[0]


def without_norms_(view: Any) -> None:
    """A post-norm block's norms made the identity, so that what leaves it is the sum."""
    for norm in view.norms:
        norm.forward = lambda x: x


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sub_block", ["attn", "mlp"])
def test_a_block_adds_its_tokens_times_the_gain(name: str, sub_block: str) -> None:
    """With the other branch at 0 a block gives x + f(x), and (a - 1) x more with a gain."""
    model = built(name)
    idle = (lambda view: view.mlp_out) if sub_block == "attn" else (lambda view: view.output)
    for view in block_views(model):
        idle(view).write_(torch.zeros_like(idle(view).w))
        for scale in (view.attn_scale, view.mlp_scale):
            for parameter in scale.parameters():
                parameter.data.fill_(1.0)
    decayed = set_skip_gains_(copy.deepcopy(model), [(0.6, 1.0) if sub_block == "attn" else (1.0, 0.6)] * 2)
    entering = None if name in ENCODERS else given(name)
    with torch.no_grad():
        (tokens, plain), (_, others) = (first_tokens(one, block_views(one), entering) for one in (model, decayed))
        for before, after in zip(plain, others, strict=True):
            if before.post_norm:
                without_norms_(before)
                without_norms_(after)
            difference = after.run(tokens) - before.run(tokens)
            torch.testing.assert_close(difference, (0.6 - 1.0) * tokens, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_gain_of_one_changes_nothing_and_keys_stay(name: str) -> None:
    model = built(name)
    before, keys = out(name, model), list(model.state_dict())
    assert torch.equal(out(name, set_skip_gains_(model, 1.0)), before)
    set_skip_gains_(model, decayed_gains(2, 0.5))
    assert list(model.state_dict()) == keys
    assert not torch.allclose(out(name, model), before)
    assert [view.skip_gains for view in block_views(model)] == [(0.75, 0.75), (0.5, 0.5)]
    assert [view.skips for view in block_views(model)] == [("attn", "mlp")] * 2
    assert torch.equal(out(name, set_skip_gains_(model, 1.0)), before)


@pytest.mark.parametrize("name", NAMES)
def test_skips_go_after_it_and_do_not_come_back_by_it(name: str) -> None:
    model = remove_skips_(set_skip_gains_(built(name), 0.5), ("attn",), layer_scale="keep")
    assert [(view.skips, view.gain("attn"), view.gain("mlp")) for view in block_views(model)] == [
        (("mlp",), 0.0, 0.5)
    ] * 2
    set_skip_gains_(model, 0.7)
    assert [(view.gain("attn"), view.gain("mlp")) for view in block_views(model)] == [(0.0, 0.7)] * 2
    bare = remove_skips_(set_skip_gains_(built(name), 0.5), layer_scale="keep")
    assert torch.equal(out(name, bare), out(name, remove_skips_(built(name), layer_scale="keep")))


def test_the_schedule_falls_from_near_one_to_the_last() -> None:
    gains = decayed_gains(12, 0.6)
    assert gains[-1] == pytest.approx(0.6)
    assert gains[0] == pytest.approx(1 - 0.4 / 12)
    assert all(one > other for one, other in itertools.pairwise(gains))
    assert 1e-3 < math.prod(gains) ** 2 < 1e-2  # both skips of a block, as the source has it
    assert not 1e-3 < math.prod(gains) < 1e-2
    for depth, last in ((0, 0.5), (2, 0.0), (2, 1.1), (2, math.nan)):
        with pytest.raises(InputError, match="give one block or more, and a gain above 0"):
            decayed_gains(depth, last)


@pytest.mark.parametrize("gains", [0.0, -1.0, math.inf, [0.5], [0.5, 0.5, 0.5], [(0.5, 0.0), (0.5, 0.5)]])
def test_what_is_no_gain_is_refused_and_nothing_changes(gains: Any) -> None:
    model = create_model("vit_tiny_patch16_224", skip=True, depth=2)
    kinds = [type(block) for block in model.blocks]
    with pytest.raises(InputError, match="give a number above 0, or one for each of 2 blocks"):
        set_skip_gains_(model, gains)
    assert [type(block) for block in model.blocks] == kinds


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_hugging_face_saves_it(name: str, tmp_path: Any) -> None:
    model: Any = set_skip_gains_(FAMILIES[name].build(dtype=torch.float32), [(0.9, 0.8), (0.7, 0.6)])
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert [view.skip_gains for view in block_views(again)] == [(0.9, 0.8), (0.7, 0.6)]
    half = remove_skips_(model, ("attn",), layer_scale="keep")
    half.save_pretrained(tmp_path / "half")
    again = type(model).from_pretrained(tmp_path / "half")
    assert [(view.skips, view.gain("mlp")) for view in block_views(again)] == [(("mlp",), 0.8), (("mlp",), 0.6)]
    inputs = FAMILIES[name].inputs(dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(inputs)[0], half.eval()(inputs)[0])


def test_instruments_see_the_gain() -> None:
    model = set_skip_gains_(
        create_model("vit_tiny_patch16_224", skip=True, depth=1, embed_dim=12, num_heads=2, seed=0), 0.5
    )
    view = block_views(model.double().eval())[0]
    x = torch.randn(5, 12, dtype=torch.float64)
    for jacobian in (attn_jacobian, mlp_jacobian):
        plain, with_skip = (jacobian(view, x, skip).to_dense() for skip in (False, True))
        torch.testing.assert_close(with_skip, plain + 0.5 * torch.eye(60, dtype=torch.float64))
    with torch.no_grad():
        sites, leaving = run_block(view, x[None])
        torch.testing.assert_close(sites["middle"], 0.5 * x[None] + sites["attention out"])
        torch.testing.assert_close(leaving, view.run(x[None]))


def test_kept_features_are_of_one_gain() -> None:
    """Neither weights nor modules' texts tell gains apart."""
    one = create_model("vit_tiny_patch16_224", skip=True, depth=1, embed_dim=12, num_heads=2, seed=0)
    hashes = [weights_hash(find_vit(set_skip_gains_(copy.deepcopy(one), gain))) for gain in (1.0, 0.5, 0.6)]
    assert len(set(hashes)) == 3


def test_branches_start_at_zero() -> None:
    model = remove_skips_(create_model("vit_tiny_patch16_224", skip=True, depth=1, seed=0), ("attn",))
    view = block_views(zero_branches_(model))[0]
    assert not view.mlp_out.w.any()
    assert view.output.w.any()
    assert isinstance(view.block, nn.Module)


@pytest.mark.parametrize("name", ["torchvision", "deit", "beit", "eva02, fused", "pre-norm", "hf vit"])
def test_compilers_take_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (SkiplessEncoderBlock, SkiplessEncoderLayer):
        monkeypatch.setattr(kind, "forward", inspect.unwrap(kind.forward))
    model = set_skip_gains_(built(name), [(0.9, 0.8), (0.7, 1.0)])
    expected = out(name, model)
    exported = torch.export.export(model, (given(name),)).module()(given(name))
    torch.testing.assert_close(exported if isinstance(exported, Tensor) else exported[0], expected)
    if name == "torchvision":
        with pytest.warns(FutureWarning, match="jit.script"):
            scripted = torch.jit.script(model)
        torch.testing.assert_close(scripted(given(name)), expected)
    again = pickle.loads(pickle.dumps(model))
    assert [view.skip_gains for view in block_views(again)] == [(0.9, 0.8), (0.7, 1.0)]
    assert torch.equal(out(name, again), expected)
