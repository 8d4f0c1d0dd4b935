"""What becomes of tokens, against loops in float64."""

import math
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.models import block_views, create_model, inspect_init, inspect_tokens
from skipless.models.eval_mode import evaluating
from skipless.models.inspection.token_report import token_cosine
from skipless.models.vit_view import embed, find_vit


def vit(**options) -> nn.Module:
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 2, "seed": 0}
    return create_model("vit_tiny_patch16_224", **{**sizes, "init": SkiplessInit(1.0, 2.0, 3.0), **options})


def pictures(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def naive_cosine(x: Tensor) -> float:
    found = []
    for image in x.double():
        found += [(a @ b / (a.norm() * b.norm())).item() for a, b in combinations(image, 2)]
    return sum(found) / len(found)


def naive_isotropy(x: Tensor) -> float:
    moments = torch.zeros(x.shape[2], x.shape[2], dtype=torch.float64)
    for token in x.double().flatten(0, 1):
        moments += torch.outer(token, token) / token.square().sum()
    values = torch.linalg.eigvalsh(moments)
    return (values.sum() ** 2 / values.square().sum() / min(x.shape[0] * x.shape[1], x.shape[2])).item()


def naive_attention(block: nn.Module, x: Tensor) -> Tensor:
    """(b, h, n, n), from timm's own weights."""
    qkv = (block.norm1(x) @ block.attn.qkv.weight.T + block.attn.qkv.bias).unflatten(-1, (3, 2, 12))
    q, k, _ = qkv.permute(2, 0, 3, 1, 4)
    return (block.attn.q_norm(q) @ block.attn.k_norm(k).transpose(-2, -1) / math.sqrt(12)).softmax(-1)


OPTIONS = [{}, {"init": None}, {"skip": True, "init": None}, {"qk_norm": True}, {"init_values": 0.3, "skip": True}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("count", [1, 3])
def test_every_number_is_that_of_a_loop(options: dict, count: int) -> None:
    model, images = vit(**options).double(), pictures(count).double()
    report = inspect_tokens(model, images)
    assert (report.images, report.tokens, len(report.blocks)) == (count, 17, 3)
    with evaluating(model), torch.no_grad():
        x = embed(find_vit(model), images)
        assert report.entering == pytest.approx(naive_cosine(x))
        for view, found in zip(block_views(model), report.blocks, strict=True):
            attention = naive_attention(view.block, x)
            kappas = [[(s[0] / s[-1]).item() for s in torch.linalg.svdvals(image)] for image in attention]
            between = view.block.ls1(view.block.attn(view.block.norm1(x))) + (x if view.skips else 0)
            tokens = view.block.norm2(between)[0, torch.tensor([0, 5, 10, 16])]
            x = view.block(x)
            assert found.name == view.name
            assert found.cosine == pytest.approx(naive_cosine(x))
            assert found.isotropy == pytest.approx(naive_isotropy(x))
            assert found.diagonal == pytest.approx(attention.diagonal(dim1=2, dim2=3).mean().item(), rel=1e-6)
            largest = torch.tensor([max(of_heads) for of_heads in kappas]).median().item()
            assert found.kappa_attention == pytest.approx(largest, rel=1e-3)
            jacobians = [torch.autograd.functional.jacobian(view.mlp, token) for token in tokens]
            spectra = [torch.linalg.svdvals(jacobian) for jacobian in jacobians]
            middle = torch.stack([s[0] / s[-1] for s in spectra]).median().item()
            assert found.kappa_mlp == pytest.approx(middle, rel=1e-4)


def test_a_mirrored_mlp_has_kappa_one() -> None:
    report = inspect_tokens(vit(init=SkiplessInit(0.0, 2.0, mlp="mirrored", mlp_linearity=1.0)), pictures())
    assert [block.kappa_mlp for block in report.blocks] == pytest.approx([1] * 3, abs=1e-4)


@pytest.mark.parametrize("dim", [3, 64, 400])
def test_isotropic_tokens_have_cosine_0_and_equal_ones_1(dim: int) -> None:
    x = torch.randn(20, 50, dim, generator=torch.Generator().manual_seed(0))
    assert token_cosine(x) == pytest.approx(0, abs=0.03)
    assert token_cosine(x[:, :1].expand(-1, 9, -1)) == pytest.approx(1)
    assert token_cosine(x[:, :1]) == 1
    assert token_cosine(torch.cat((x[:, :1], -x[:, :1]), 1)) == pytest.approx(-1)
    assert token_cosine(torch.zeros(1, 3, dim)) == 0


@pytest.mark.parametrize(("size", "collapsed"), [(0.0, "blocks.0"), (3.0, None)])
def test_the_first_block_after_which_tokens_have_collapsed_is_named(size: float, collapsed: str | None) -> None:
    model = vit(init=SkiplessInit(0.0, 3.0, mlp="mirrored", mlp_linearity=1.0))
    model.pos_embed.data.normal_(generator=torch.Generator().manual_seed(0)).mul_(size)
    model.cls_token.data.zero_()
    if not size:  # a token that differs keeps a blank image from collapse
        model.cls_token.data.copy_(embed(find_vit(model), torch.ones(1, 3, 16, 16))[:, 1:2])
    report = inspect_tokens(model, torch.ones(2, 3, 16, 16))
    assert report.collapsed == collapsed
    said = "tokens have collapsed after blocks.0" if collapsed else "tokens stay apart"
    assert said in str(report)
    assert said in repr(report)


def test_with_images_the_init_report_has_it_too() -> None:
    model, images = vit(), pictures()
    report, tokens = inspect_init(model, images=images), inspect_tokens(model, images)
    assert report.on_images == tokens
    assert report.token_cosine == tuple(block.cosine for block in tokens.blocks)
    assert report.attention_diagonal == tuple(block.diagonal for block in tokens.blocks)
    assert "isotropy" in str(report)
    alone = inspect_init(model)
    assert (alone.on_images, alone.token_cosine) == (None, ())
    assert len(alone.attention_diagonal) == 3
    assert "isotropy" not in str(alone)
    assert alone.blocks == report.blocks


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    report, expected = inspect_tokens(vit().to(dtype), pictures()), inspect_tokens(vit(), pictures())
    for found, block in zip(report.blocks, expected.blocks, strict=True):
        assert found.cosine == pytest.approx(block.cosine, abs=0.05)
        assert found.diagonal == pytest.approx(block.diagonal, abs=0.05)


def test_the_mode_is_restored_and_dropout_takes_no_part() -> None:
    model = vit(proj_drop_rate=0.5, attn_drop_rate=0.5).train()
    assert inspect_tokens(model, pictures()) == inspect_tokens(vit(), pictures())
    assert all(module.training for module in model.modules())


def test_a_wide_model_has_no_jacobians(monkeypatch) -> None:
    from skipless.models.inspection import token_report

    monkeypatch.setattr(token_report, "_WIDEST", 8)
    report = inspect_tokens(vit(), pictures())
    assert [block.kappa_mlp for block in report.blocks] == [None] * 3
    assert "–" in str(report)


@pytest.mark.usefixtures("unchecked")
def test_images_are_taken_by_name() -> None:
    with pytest.raises(InputError, match=r"inspect_init\(model, images=batch\)"):
        inspect_init(vit(), pictures())  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="no adapter for `Sequential`"):
        inspect_tokens(vit().blocks, pictures())
