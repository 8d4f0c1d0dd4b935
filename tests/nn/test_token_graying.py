"""Token Graying: the spectrum it leaves, its gradients, and its place in a model."""

import copy

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from skipless.errors import InputError
from skipless.models.token_graying import input_kappas, insert_token_graying_, remove_token_graying_
from skipless.nn import TokenGraying
from skipless.nn.token_graying import dct_matrix

METHODS = ("svd", "dct")


def tokens(b: int = 2, n: int = 7, d: int = 5, dtype: torch.dtype = torch.double) -> torch.Tensor:
    """Ill-conditioned, as tokens are: a strong mean and a decaying spectrum."""
    x = torch.randn(b, n, d, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    return (x * torch.logspace(0, -3, d, dtype=torch.double) + 1).to(dtype)


def test_the_matrix_is_the_dct_of_its_definition():
    d, x = dct_matrix(6, torch.double, torch.device("cpu")), torch.randn(6, dtype=torch.double)
    for k in range(6):
        scale = (1 / 6) ** 0.5 if k == 0 else (2 / 6) ** 0.5
        expected = scale * sum(
            x[i] * torch.cos(torch.tensor(torch.pi * k * (2 * i + 1) / 12)).double() for i in range(6)
        )
        assert (d @ x)[k].item() == pytest.approx(expected.item(), abs=1e-6)
    torch.testing.assert_close(d @ d.mT, torch.eye(6, dtype=torch.double))


@pytest.mark.parametrize("shape", [(2, 7, 5), (1, 4, 9)])
@pytest.mark.parametrize("eps", [0.9, 0.5])
def test_svd_raises_every_singular_value_to_the_power(shape, eps):
    x = tokens(*shape)
    before = torch.linalg.svdvals(x)
    share = before / before[:, :1]
    torch.testing.assert_close(torch.linalg.svdvals(TokenGraying(eps, "svd", peak="one")(x)), share**eps)
    torch.testing.assert_close(torch.linalg.svdvals(TokenGraying(eps, "svd")(x)), before[:, :1] * share**eps)
    kappa, grayed = input_kappas(x, [TokenGraying(eps, "svd")])
    torch.testing.assert_close(grayed, kappa**eps)


def test_svd_keeps_the_directions():
    x = tokens()
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    peak = s[:, :1]
    expected = (u * (peak * (s / peak) ** 0.7)[:, None]) @ vh
    torch.testing.assert_close(TokenGraying(0.7, "svd")(x), expected)


def test_dct_raises_every_coefficient_to_the_power():
    x = tokens()
    rows, columns = (dct_matrix(size, x.dtype, x.device) for size in (7, 5))
    before = rows @ x @ columns.mT
    after = rows @ TokenGraying(0.6, "dct")(x) @ columns.mT
    peak = before.abs().amax((1, 2), keepdim=True)
    torch.testing.assert_close(after, before.sign() * peak * (before.abs() / peak) ** 0.6)


@pytest.mark.parametrize("method", METHODS)
def test_kappa_falls_with_the_power(method):
    kappas = [
        kappa.log().mean().item()
        for kappa in input_kappas(tokens(), [TokenGraying(e, method) for e in (0.9, 0.7, 0.5)])
    ]
    assert kappas == sorted(kappas, reverse=True)
    assert len(set(kappas)) == 4


@pytest.mark.parametrize("method", METHODS)
def test_a_power_of_one_changes_nothing(method):
    x = tokens(dtype=torch.float)
    torch.testing.assert_close(TokenGraying(1.0, method)(x), x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_each_image_by_itself(method):
    x, gray = tokens(3), TokenGraying(0.7, method)
    torch.testing.assert_close(gray(x), torch.cat([gray(image) for image in x.split(1)]))


@pytest.mark.parametrize("peak", ["kept", "one"])
@pytest.mark.parametrize("shape", [(2, 6, 4), (1, 3, 5)])
@pytest.mark.parametrize("method", METHODS)
def test_gradients(method, shape, peak):
    x = tokens(*shape).requires_grad_()
    assert torch.autograd.gradcheck(TokenGraying(0.7, method, peak=peak), (x,))


def test_gradients_where_singular_values_coincide():
    gray = TokenGraying(0.6, "svd", peak="one")
    x = torch.zeros(1, 6, 4, dtype=torch.double)
    x[0, :4] = torch.diag(torch.tensor([2.0, 1.0, 1.0, 0.5], dtype=torch.double))
    x.requires_grad_()
    assert torch.autograd.gradcheck(gray, (x,))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "x", [torch.zeros(1, 5, 4), torch.ones(1, 5, 4), torch.eye(5)[None]], ids=["zero", "rank one", "identity"]
)
def test_degenerate_tokens_have_finite_values_and_gradients(method, x):
    x = x.clone().requires_grad_()
    y = TokenGraying(0.5, method)(x)
    y.square().sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_and_autocast(method):
    x = tokens(n=33, d=16)
    expected = TokenGraying(0.7, method)(x)
    half = TokenGraying(0.7, method)(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.double() - expected).abs().max() < 0.05 * expected.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        cast = TokenGraying(0.7, method)(x.float())
    assert cast.dtype == torch.float32
    torch.testing.assert_close(cast.double(), expected, rtol=1e-3, atol=1e-3)


def vit() -> VisionTransformer:
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=12, num_heads=2, depth=2, num_classes=3
    ).eval()


@pytest.mark.parametrize("method", METHODS)
def test_the_first_block_gets_grayed_tokens_once(method):
    model, images = vit(), torch.randn(2, 3, 16, 16)
    plain, keys = model(images), list(model.state_dict())
    entering = model.norm_pre(model._pos_embed(model.patch_embed(images)))
    gray = TokenGraying(0.5, method)
    insert_token_graying_(model, gray)
    expected = model.forward_head(model.norm(model.blocks(gray(entering))))
    torch.testing.assert_close(model(images), expected)
    torch.testing.assert_close(copy.deepcopy(model)(images), expected)
    assert list(model.state_dict()) == keys
    assert not any("gray" in name.lower() for name, _ in model.named_modules())
    with pytest.raises(InputError, match="has Token Graying already"):
        insert_token_graying_(model)
    torch.testing.assert_close(remove_token_graying_(model)(images), plain)
    torch.testing.assert_close(remove_token_graying_(model)(images), plain)


def test_gradients_reach_the_embedding():
    model = insert_token_graying_(vit(), TokenGraying(0.7, "svd"))
    model(torch.randn(1, 3, 16, 16)).sum().backward()
    assert model.patch_embed.proj.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0.0}, "eps=0.0: give a power above 0"),
        ({"eps": 1.5}, "eps=1.5"),
        ({"eps": float("nan")}, "eps=nan"),
        ({"method": "fft"}, "method='fft' is not one of 'dct', 'svd'"),
        ({"peak": "two"}, "peak='two' is not one of 'kept', 'one'"),
    ],
)
def test_bad_choices_are_refused(options, message, unchecked):
    with pytest.raises(InputError) as refused:
        TokenGraying(**options)
    assert message in str(refused.value)


def test_models_without_blocks_of_timm_are_refused():
    with pytest.raises(InputError, match="no adapter for `Linear`"):
        insert_token_graying_(torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match="singular"):
        input_kappas(torch.zeros(1, 3, 3), [])
