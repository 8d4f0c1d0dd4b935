"""Conditioned tokens: against the SVD, their bound, padding, class token, gradient, and where they are put in."""

import pytest
import timm
import torch
import transformers

from skipless.errors import InputError
from skipless.models.token_graying import find_token_graying, insert_token_graying_, remove_token_graying_
from skipless.nn import ConditionedTokens, TokenGraying
from tests.reference.attention_cores import conditioned


def _tokens(n: int, d: int, kappa: float = 1e3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(3, n, d, generator=generator, dtype=torch.double), full_matrices=False)
    s = torch.logspace(0, -torch.tensor(kappa).log10().item(), min(n, d), dtype=torch.double)
    return 5 * (u * s) @ vh


@pytest.mark.parametrize("shape", [(9, 16), (16, 9), (8, 8)])
@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_it_is_what_the_svd_gives_and_keeps_the_bound(shape: tuple[int, int], ratio: float) -> None:
    x = _tokens(*shape)
    found = ConditionedTokens(ratio)(x)
    torch.testing.assert_close(found, conditioned(x, ratio), rtol=1e-10, atol=1e-10)
    s = torch.linalg.svdvals(found)
    assert (s[:, 0] / s[:, -1] <= 1 + 1 / ratio + 1e-9).all()


def test_it_is_as_close_in_float32_and_takes_bfloat16() -> None:
    x = _tokens(9, 16)
    assert (ConditionedTokens()(x.float()) - conditioned(x, 1.0)).abs().max() < 1e-3
    half = ConditionedTokens()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half - conditioned(x.bfloat16(), 1.0)).abs().max() < 0.05


def test_padding_and_front_tokens_stay_and_have_no_part() -> None:
    x, padding = _tokens(9, 16), torch.zeros(3, 9, dtype=torch.bool)
    padding[1, 6:] = True
    layer = ConditionedTokens(skip=1)
    found = layer(x, padding)
    assert torch.equal(found[:, 0], x[:, 0])
    assert torch.equal(found[1, 6:], x[1, 6:])
    torch.testing.assert_close(found[1, 1:6], conditioned(x[1:2, 1:6], 1.0)[0], rtol=1e-9, atol=1e-9)
    other = x.clone()
    other[1, 6:], other[:, 0] = 100, 100
    torch.testing.assert_close(layer(other, padding)[1, 1:6], found[1, 1:6])


@pytest.mark.parametrize("detach", [False, True])
def test_its_gradient_is_that_of_c_or_none(detach: bool) -> None:
    x = _tokens(5, 7, 20.0)[:1].requires_grad_()
    layer = ConditionedTokens(detach=detach)
    if detach:
        (gradient,) = torch.autograd.grad(layer(x).sum(), x)
        assert torch.equal(gradient, torch.ones_like(x))
    else:
        assert torch.autograd.gradcheck(layer, x)


def test_it_is_finite_at_zero() -> None:
    x = torch.zeros(1, 4, 5, requires_grad=True)
    out = ConditionedTokens()(x)
    out.sum().backward()
    assert x.grad is not None
    assert out.isfinite().all()
    assert x.grad.isfinite().all()


def test_it_goes_where_token_graying_goes() -> None:
    model = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32).eval()
    x = torch.randn(2, 3, 32, 32)
    before = model(x)
    insert_token_graying_(model, ConditionedTokens())
    assert not torch.allclose(model(x), before)
    assert [type(one) for one in find_token_graying(model)] == [ConditionedTokens]
    with pytest.raises(InputError, match="already"):
        insert_token_graying_(model, TokenGraying())
    assert torch.equal(remove_token_graying_(model)(x), before)


@pytest.mark.parametrize("layer", [ConditionedTokens(), TokenGraying()])
def test_a_causal_model_is_refused(layer: torch.nn.Module) -> None:
    config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=20)
    with pytest.raises(InputError, match="future"):
        insert_token_graying_(transformers.GPT2LMHeadModel(config), layer)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("wrong", [{"ratio": 0.0}, {"ratio": float("nan")}, {"steps": 0}, {"skip": -1}])
def test_options_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        ConditionedTokens(**wrong)  # pyright: ignore[reportArgumentType]
