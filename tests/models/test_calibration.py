"""Attention that starts with a given mean diagonal."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.models import block_views, calibrate_, create_model, initialize_, inspect_init, inspect_tokens
from skipless.models.eval_mode import evaluating
from skipless.models.starting import attention_diagonal
from skipless.models.starting.attention_diagonal import centre_queries_, head_logits, mean_diagonals, scale_logits_
from skipless.models.starting.first_tokens import first_tokens

INIT = SkiplessInit(1.0, 1.0, 3.0)


def vit(**options) -> nn.Module:
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 48, "depth": 3, "num_heads": 2, "init": INIT, "seed": 0}
    return create_model("vit_tiny_patch16_224", **{**sizes, **options})


def pictures(count: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def weights(model: nn.Module) -> list[Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def same(before: list[Tensor], model: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))


MODELS = [
    {},
    {"embed_dim": 128, "num_heads": 4},
    {"embed_dim": 96, "num_heads": 1},
    {"qk_norm": True},
    {"qkv_bias": False},
    {"class_token": False, "global_pool": "avg"},
    {"init": SkiplessInit(0.0, 1.0, 3.0, mlp="mirrored")},
]


@pytest.mark.parametrize("options", MODELS, ids=str)
@pytest.mark.parametrize("target", [0.3, 0.9])
def test_every_head_of_every_block_reaches_the_target_on_images(options: dict, target: float) -> None:
    model, images = vit(**options), pictures()
    calibrate_(model, target, images=images)
    report = inspect_init(model, images=images)
    assert report.attention_diagonal == pytest.approx([target] * 3, abs=0.01)
    if "qk_norm" not in options:  # one factor serves all heads there
        with evaluating(model), torch.no_grad():
            x = first_tokens(model, block_views(model), images)[0]
            for view in block_views(model):
                heads = mean_diagonals(view, view.attn_norm(x))
                assert heads.tolist() == pytest.approx([target] * view.heads, abs=0.01)
                x = view.block(x)


@pytest.mark.parametrize("options", MODELS, ids=str)
def test_without_images_normal_tokens_enter_the_first_block(options: dict) -> None:
    model = calibrate_(vit(**options), 0.9)
    block = inspect_init(model, tokens=17).blocks[0]
    assert sum(block.diagonal) / len(block.diagonal) == pytest.approx(0.9, abs=0.05)
    with evaluating(model), torch.no_grad():
        x = first_tokens(model, block_views(model), None)[0]
        assert x.shape[0] * x.shape[1] >= 1024
        assert x.shape[1] == (16 if model.cls_token is None else 17)
        for view in block_views(model):
            reached = mean_diagonals(view, view.attn_norm(x)).mean().item()
            assert reached == pytest.approx(0.9, abs=0.01)
            x = view.block(x)


@pytest.mark.parametrize("targets", [(0.95, 0.5, 0.2), [0.5, 0.6, 0.7]])
def test_each_block_may_have_a_target_of_its_own(targets) -> None:
    model = calibrate_(vit(), targets, images=pictures())
    assert inspect_init(model, images=pictures()).attention_diagonal == pytest.approx(tuple(targets), abs=0.01)


def test_the_scheme_falls_from_the_first_diagonal_to_the_last() -> None:
    init = SkiplessInit(1.0, 1.0, attention_diagonal=0.9, last_diagonal=0.225)
    model = initialize_(vit(init=None), init, images=pictures())
    report = inspect_init(model, init, images=pictures())
    assert report.attention_diagonal == pytest.approx((0.9, 0.45, 0.225), abs=0.01)
    assert report.flags == ()
    assert SkiplessInit(attention_diagonal=0.9).diagonals(3) == (0.9, 0.9, 0.9)
    assert init.diagonals(1) == (0.9,)
    assert SkiplessInit().diagonals(3) == ()


@pytest.mark.parametrize("with_images", [True, False])
def test_it_draws_nothing_and_keeps_the_direction_of_every_weight(with_images: bool) -> None:
    images = pictures() if with_images else None
    state = torch.random.get_rng_state()
    first, second, before = vit(), vit(), block_views(vit())
    for model in (first, second):
        calibrate_(model, 0.9, images=images)
    assert same(weights(first), second)
    assert torch.equal(torch.random.get_rng_state(), state)
    for old, new in zip(before, block_views(first), strict=True):
        for head in range(2):
            part = slice(24 * head, 24 * head + 24)
            for a, b in ((old.w_q, new.w_q), (old.w_k, new.w_k)):
                ratio = b[:, part] / a[:, part]
                torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-3, atol=0)
        assert all(torch.equal(a.w, b.w) for a, b in zip(old.maps[2:], new.maps[2:], strict=True))


def test_logits_are_those_of_the_library() -> None:
    """With biases, qk-norm and its weights: softmax(logits) V is what timm computes."""
    model = vit(qk_norm=True)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    view = block_views(model)[0]
    x = torch.randn(2, 9, 48, generator=torch.Generator().manual_seed(1))
    with evaluating(model), torch.no_grad():
        values = (x @ view.w_v + view.value.b).unflatten(-1, (2, 24)).transpose(1, 2)
        mixed = (head_logits(view, x).softmax(-1) @ values).transpose(1, 2).flatten(2)
        torch.testing.assert_close(mixed @ view.w_o + view.output.b, view.attn(x), atol=1e-5, rtol=1e-4)
        rows = torch.tensor([1, 4])
        torch.testing.assert_close(head_logits(view, x, rows), head_logits(view, x)[:, :, rows])


def test_the_mean_diagonal_is_that_of_a_loop(monkeypatch) -> None:
    view = block_views(vit())[1]
    x = torch.randn(5, 7, 48, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(2)
    for image in x:
        for head in range(2):
            part = slice(24 * head, 24 * head + 24)
            logits = (image @ view.w_q[:, part]) @ (image @ view.w_k[:, part]).T / 24**0.5
            expected[head] += logits.softmax(-1).diagonal().mean() / 5
    assert mean_diagonals(view, x).tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    monkeypatch.setattr(attention_diagonal, "_MEASURED", 1)  # one image at a time
    assert mean_diagonals(view, x).tolist() == pytest.approx(expected.tolist(), rel=1e-4)


def test_queries_are_measured_from_the_mean_token() -> None:
    """What all tokens share no longer favours some keys, and other directions are seen as before."""
    view = block_views(vit())[0]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 30, 48, generator=generator) + 3 * torch.randn(48, generator=generator)
    before = head_logits(view, x)
    centre_queries_(view, x)
    after = head_logits(view, x)
    q = x @ view.w_q + view.query.b
    torch.testing.assert_close(q.mean((0, 1)), torch.zeros(48), atol=1e-4, rtol=0)
    shared = before - after  # the same for every query: what the mean token would ask
    torch.testing.assert_close(shared, shared[:, :, :1].expand_as(shared), atol=1e-3, rtol=1e-3)
    assert shared.std() > 1
    kept = [linear.b for linear in (view.key, view.value)]
    assert not any(bias is None or bias.any() for bias in kept)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_tokens_that_are_all_alike_leave_the_weights_as_they_are(qk_norm: bool) -> None:
    """No scale lifts their diagonal. Queries and keys were shrunk to a ten-thousandth of their product."""
    view = block_views(vit(qk_norm=qk_norm))[0]
    before = view.w_q.clone(), view.w_k.clone()
    x = torch.randn(48, generator=torch.Generator().manual_seed(0)).expand(2, 9, 48)
    reached = scale_logits_(view, x, 0.9)
    assert reached.tolist() == pytest.approx([1 / 9] * 2)
    torch.testing.assert_close(view.w_q, before[0])
    torch.testing.assert_close(view.w_k, before[1])


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 16, 16), torch.ones(1, 3, 16, 16)], ids=["blank", "one"])
def test_targets_out_of_reach_leave_finite_moderate_logits(images: Tensor) -> None:
    model = vit()
    model.pos_embed.data.zero_()
    model.cls_token.data.zero_()
    calibrate_(model, 0.99, images=images)
    with evaluating(model), torch.no_grad():
        x = first_tokens(model, block_views(model), images)[0]
        for view in block_views(model):
            logits = head_logits(view, view.attn_norm(x))
            assert logits.isfinite().all()
            assert (logits.amax(-1) - logits.amin(-1)).max() < 200
            x = view.block(x)
    assert model(images).isfinite().all()


def test_near_duplicates_bound_the_diagonal_and_the_logits() -> None:
    """Each token is there twice: no attention gives more than one half."""
    view = block_views(vit(init=SkiplessInit(0.0, 2.0, 3.0)))[0]
    x = torch.randn(2, 8, 48, generator=torch.Generator().manual_seed(0)).repeat(1, 2, 1)
    reached = scale_logits_(view, x, 0.9)
    assert all(0.45 < value <= 0.5 for value in reached.tolist())
    assert head_logits(view, x).abs().max() < 100


@pytest.mark.parametrize("limit", [2**13, 2**15])
def test_of_many_tokens_a_part_says_the_same(limit: int, monkeypatch) -> None:
    """Of many images it was one row that was measured, that of the class token."""
    views = [block_views(vit(embed_dim=96))[0] for _ in range(2)]
    x = torch.randn(40, 65, 96, generator=torch.Generator().manual_seed(0))
    x[:, 0] *= 4  # the first token is of another kind
    scale_logits_(views[0], x, 0.8)
    monkeypatch.setattr(attention_diagonal, "_SOLVED", limit)
    scale_logits_(views[1], x, 0.8)
    for view in views:
        assert mean_diagonals(view, x).tolist() == pytest.approx([0.8] * 2, abs=0.06)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_every_module_is_restored(training: bool) -> None:
    model = vit(proj_drop_rate=0.3, attn_drop_rate=0.3).train(training)
    model.blocks[1].train(not training)
    modes = [module.training for module in model.modules()]
    calibrate_(model, 0.9, images=pictures())
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(InputError):
        calibrate_(model, 0.9, images=torch.zeros(1, 3, 17, 16))
    assert [module.training for module in model.modules()] == modes
    twin = calibrate_(vit(), 0.9, images=pictures())
    assert same(weights(twin), model)  # dropout took no part


def test_blocks_alone_are_calibrated_without_images() -> None:
    blocks = vit().blocks
    assert calibrate_(blocks, 0.9) is blocks
    with pytest.raises(InputError, match="no adapter for `Sequential`"):
        calibrate_(blocks, 0.9, images=pictures())


@pytest.mark.parametrize(
    ("diagonal", "images", "words"),
    [
        (0.0, None, "diagonal=0.0: give a number between 0 and 1, or one for each of 3 blocks"),
        ([0.9, 0.9], None, "one for each of 3 blocks"),
        ([0.9, 0.9, 1.2], None, "give a number between 0 and 1"),
        (1.0, None, "diagonal=1.0"),
        (float("nan"), None, "diagonal=nan"),
        (0.9, torch.zeros(1, 3, 15, 16), "15 x 16 are not whole patches"),
        (0.9, torch.zeros(1, 1, 16, 16), "have 1 channels, the model takes 3"),
        (0.9, torch.zeros(0, 3, 16, 16), r"shape \(0, 3, 16, 16\), torch.float32: give normalised ones"),
        (0.9, torch.zeros(3, 16, 16), r"shape \(3, 16, 16\).*\(b, c, h, w\)"),
        (0.9, torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "torch.uint8: give normalised ones"),
        (0.9, torch.full((1, 3, 16, 16), float("nan")), "not finite"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_done_is_refused_and_changes_nothing(diagonal, images, words: str) -> None:
    model = vit()
    before = weights(model)
    with pytest.raises(InputError, match=words):
        calibrate_(model, diagonal, images=images)
    assert same(before, model)
    if images is not None:
        with pytest.raises(InputError, match=words):
            inspect_tokens(model, images)


def test_qk_norm_without_a_weight_is_refused_before_anything_is_written() -> None:
    model = vit(qk_norm=True, norm_layer=partial(nn.LayerNorm, elementwise_affine=False), init=None)
    before = weights(model)
    with pytest.raises(InputError, match="blocks.0 has qk-norm without a weight: .*; use attention_diagonal=None"):
        calibrate_(model, 0.9, images=pictures())
    assert same(before, model)


def test_a_device_in_force_does_not_reach_it() -> None:
    model, twin = vit(), vit()
    calibrate_(model, 0.9)
    with torch.device("meta"):
        calibrate_(twin, 0.9)
    assert same(weights(model), twin)
