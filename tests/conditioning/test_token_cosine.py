"""C-maps of attention and MLP composed, beside what models measure."""

from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from timm.layers import GluMlp, SwiGLU
from torch import Tensor, nn

from skipless.conditioning import attention_correlation, predict_token_cosine
from skipless.conditioning.theory.token_cosine import compose_cosines, mean_cosine, mlp_correlation
from skipless.errors import InputError
from skipless.init import CorrelationMap, SkiplessInit
from skipless.init.random_matrices import haar
from skipless.models import block_views, create_model, initialize_, inspect_tokens


@cache
def images(kind: str) -> Tensor:
    """Four images of 112 x 112: noise, or crops of scikit-learn's two photographs."""
    if kind == "noise":
        return torch.randn(4, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    photos = [torch.tensor(np.array(photo)).permute(2, 0, 1) / 255 for photo in load_sample_images().images]
    crops = torch.stack([p[:, y : y + 224 : 2, x : x + 224 : 2] for p in photos for y, x in ((0, 0), (200, 400))])
    return (crops - crops.mean((0, 2, 3), keepdim=True)) / crops.std((0, 2, 3), keepdim=True)


def naive_attention_correlation(cosines: Tensor, attention: Tensor) -> Tensor:
    """Of tokens with these cosines, one after another: heads write into directions of their own."""
    n, heads = len(cosines), len(attention)
    gram = torch.zeros(n, n, dtype=torch.float64)
    for a in range(n):
        for b in range(n):
            for head in range(heads):
                for i in range(n):
                    for j in range(n):
                        gram[a, b] += attention[head, a, i] * cosines[i, j] * attention[head, b, j]
    return gram / (gram.diag()[:, None] * gram.diag()[None]).sqrt()


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_attention_is_that_of_a_loop(heads: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = nn.functional.normalize(torch.randn(5, 9, generator=generator, dtype=torch.float64), dim=1)
    attention = (3 * torch.randn(heads, 5, 5, generator=generator, dtype=torch.float64)).softmax(-1)
    expected = naive_attention_correlation(x @ x.T, attention)
    torch.testing.assert_close(attention_correlation(x @ x.T, attention), expected)
    batch = attention_correlation((x @ x.T).expand(2, 5, 5), attention.expand(2, heads, 5, 5))
    torch.testing.assert_close(batch, expected.expand(2, 5, 5))


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_is_that_of_wide_random_heads(heads: int) -> None:
    """Y = sum over heads of A_h X U_h V_h, for U V a rotation."""
    dim, n = 512, 8
    generator = torch.Generator().manual_seed(0)
    x = nn.functional.normalize(torch.randn(n, dim, generator=generator).double() + 0.5, dim=1)
    attention = (2 * torch.randn(heads, n, n, generator=generator, dtype=torch.float64)).softmax(-1)
    u, v = haar(dim, dim, generator=generator), haar(dim, dim, generator=generator)
    values = (x @ u).unflatten(1, (heads, -1)).transpose(0, 1)
    y = (attention @ values).transpose(0, 1).flatten(1) @ v
    unit = nn.functional.normalize(y, dim=1)
    torch.testing.assert_close(unit @ unit.T, attention_correlation(x @ x.T, attention), atol=0.1, rtol=0)


@pytest.mark.parametrize("n", [2, 6])
def test_kept_tokens_stay_as_they_are_and_uniform_attention_makes_them_one(n: int) -> None:
    x = nn.functional.normalize(
        torch.randn(n, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=1
    )
    torch.testing.assert_close(attention_correlation(x @ x.T, torch.eye(n).double()[None]), x @ x.T)
    assert mean_cosine(attention_correlation(x @ x.T, torch.full((1, n, n), 1 / n).double())) == pytest.approx(1)
    assert mean_cosine(torch.ones(3, 1, 1)) == 1


def test_maps_are_composed_block_by_block() -> None:
    c_map = CorrelationMap.of(nn.GELU())
    apart = torch.eye(5, dtype=torch.float64)[None]
    kept = [torch.eye(5, dtype=torch.float64)[None, None]] * 3
    found = compose_cosines(apart, kept, [c_map] * 3)
    assert found == pytest.approx([c_map.after(count) for count in (1, 2, 3)])


SCHEMES = {
    "orthogonal": {},
    "mirrored": {"mlp": "mirrored"},
    "half mirrored": {"mlp": "mirrored", "mlp_linearity": 0.5},
    "rotation": {"mlp": "mirrored", "mlp_linearity": 1.0},
    "calibrated": {"attention_diagonal": 0.9},
    "mirrored, calibrated": {"mlp": "mirrored", "attention_diagonal": 0.9},
    "all": {"mlp": "mirrored", "attention_diagonal": 0.9, "positions": "orthogonal"},
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", ["noise", "photographs"])
def test_the_prediction_is_within_a_twentieth_at_width_384(scheme: str, kind: str) -> None:
    model = create_model("vit_small_patch16_224", depth=4, img_size=112, seed=0)
    on = images(kind) if "calibrated" in scheme else None
    init = SkiplessInit(1.8, 1.0, 3.0, **SCHEMES[scheme])
    initialize_(model, init, images=on, generator=torch.Generator().manual_seed(0))
    found = predict_token_cosine(model, images(kind))
    assert found.error < 0.05
    report = inspect_tokens(model, images(kind))
    assert found.measured == tuple(block.cosine for block in report.blocks)
    assert found.diagonal == tuple(block.diagonal for block in report.blocks)
    assert found.entering == report.entering
    grown = max(found.measured) - found.entering
    assert grown < 0.05 if scheme == "rotation" else grown > 0.05  # there is something to predict


@pytest.mark.parametrize("options", [{"act_layer": "silu"}, {"act_layer": "relu"}, {"act_layer": "tanh"}], ids=str)
def test_other_activations(options: dict) -> None:
    model = create_model("vit_small_patch16_224", init=SkiplessInit(1.8, 1.0), depth=3, img_size=112, seed=0, **options)
    assert predict_token_cosine(model, images("noise")).error < 0.05


GATED = [
    ({}, {}),
    ({"mlp": "mirrored"}, {}),
    ({"mlp": "mirrored", "mlp_linearity": 1.0}, {}),
    ({"gates": "equal"}, {"proj_bias": False}),
    ({"mlp": "mirrored"}, {"proj_bias": False}),
    ({"mlp": "mirrored", "mlp_linearity": 0.7}, {"proj_bias": False}),
]


@pytest.mark.parametrize(("chosen", "options"), GATED, ids=str)
def test_gated_mlps(chosen: dict, options: dict) -> None:
    sizes = {
        "depth": 3,
        "img_size": 112,
        "seed": 0,
        "mlp_layer": SwiGLU if options else GluMlp,
        "act_layer": "silu",
        **options,
    }
    model = create_model("vit_small_patch16_224", init=SkiplessInit(1.8, 1.0, **chosen), **sizes)
    assert predict_token_cosine(model, images("photographs")).error < 0.05


@pytest.mark.parametrize("linearity", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("options", [{}, {"act_layer": "silu"}, {"mlp_ratio": 3.0}], ids=str)
def test_the_share_is_read_from_the_weights(linearity: float, options: dict) -> None:
    init = SkiplessInit(mlp="mirrored", mlp_linearity=linearity)
    sizes = {"embed_dim": 96, "depth": 1, "num_heads": 2, "img_size": 32}
    model = create_model("vit_tiny_patch16_224", init=init, seed=0, **sizes, **options)
    view = block_views(model)[0]
    assert mlp_correlation(view).linearity == pytest.approx(linearity, abs=1e-3)
    plain = create_model("vit_tiny_patch16_224", init=SkiplessInit(), seed=0, **sizes, **options)
    assert mlp_correlation(block_views(plain)[0]) == CorrelationMap.of(view.activation)


@pytest.mark.parametrize("linearity", [0.93, 0.99, 1.0])
def test_the_share_of_a_gated_mlp_is_read_from_the_weights(linearity: float) -> None:
    init = SkiplessInit(mlp="mirrored", mlp_linearity=linearity)
    sizes = {"embed_dim": 192, "depth": 1, "num_heads": 2, "img_size": 32, "mlp_layer": GluMlp, "act_layer": "silu"}
    model = create_model("vit_tiny_patch16_224", init=init, seed=0, **sizes)
    found = mlp_correlation(block_views(model)[0])
    assert found.linearity == pytest.approx(linearity, abs=0.01)
    assert found(0.0) == 0


def test_heads_of_two_kinds_are_refused() -> None:
    init = SkiplessInit(mlp="mirrored", attention_diagonal=0.9, last_diagonal=0.2, context_heads=0.5)
    sizes = {"embed_dim": 24, "depth": 1, "num_heads": 2, "img_size": 32, "seed": 0}
    with pytest.raises(InputError, match="of two kinds"):
        predict_token_cosine(create_model("vit_tiny_patch16_224", init=init, **sizes), torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("sub_blocks", [("attn",), ("mlp",)])
def test_skips_are_refused(sub_blocks: tuple[str, ...]) -> None:
    sizes = {"embed_dim": 24, "depth": 1, "num_heads": 2, "img_size": 32}
    model = create_model("vit_tiny_patch16_224", sub_blocks=sub_blocks, **sizes)
    with pytest.raises(InputError, match="call remove_skips_ first"):
        predict_token_cosine(model, torch.zeros(1, 3, 32, 32))
    model = create_model("vit_tiny_patch16_224", **sizes).train()
    with pytest.raises(InputError, match="31 x 32 are not whole patches"):
        predict_token_cosine(model, torch.zeros(1, 3, 31, 32))
    predict_token_cosine(model, torch.ones(20, 3, 32, 32))
    assert all(module.training for module in model.modules())
