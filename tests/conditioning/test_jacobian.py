"""K_l, K^_l, J_l and J against dense jacrev of an attention written from the paper, in float64."""

from dataclasses import replace

import pytest
import timm
import torch
from reference import jacobian as naive
from timm.layers import GluMlp, SwiGLU
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from skipless.conditioning.operators import attention
from skipless.conditioning.operators.jacobian import attn_jacobian, mlp_jacobian, param_jacobian
from skipless.errors import InputError
from skipless.models import block_views, create_model

TOLERANCE = 1e-8


def block(dim: int = 12, heads: int = 2, seed: int = 0, **kwargs) -> Block:
    """A timm block with weights large enough that its attention is far from uniform."""
    torch.manual_seed(seed)
    made = Block(dim, heads, mlp_ratio=2.0, **kwargs).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.6)
    return made


def tokens(n: int = 5, d: int = 12, seed: int = 1) -> Tensor:
    return torch.randn(n, d, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def assert_is(operator, matrix: Tensor) -> None:
    """Every way of asking the operator gives this matrix."""
    scale = matrix.norm()
    assert operator.shape == tuple(matrix.shape)
    assert (operator.to_dense() - matrix).norm() <= TOLERANCE * scale
    by_products = replace(operator, dense=None, blocks=None)
    assert (by_products.to_dense() - matrix).norm() <= TOLERANCE * scale
    generator = torch.Generator().manual_seed(2)
    v, u = (torch.randn(size, dtype=torch.double, generator=generator) for size in reversed(matrix.shape))
    assert (operator.matvec(v) - matrix @ v).norm() <= TOLERANCE * (matrix @ v).norm()
    assert (operator.rmatvec(u) - matrix.T @ u).norm() <= TOLERANCE * (matrix.T @ u).norm()
    assert abs(u @ operator.matvec(v) - operator.rmatvec(u) @ v) <= TOLERANCE * scale * u.norm() * v.norm()


# K_l

CASES = [(heads, kind) for heads in (1, 2, 3, 4, 6) for kind in ("bias", "no bias", "skip", "layer scale")]


@pytest.mark.parametrize(("heads", "kind"), CASES)
def test_the_attention_jacobian_is_that_of_the_paper(heads: int, kind: str) -> None:
    kwargs = {"qkv_bias": kind != "no bias", "proj_bias": kind != "no bias"}
    made = block(12, heads, seed=heads, init_values=0.5 if kind == "layer scale" else None, **kwargs)
    x, skip = tokens(n=4 + heads % 3), kind == "skip"
    weights = naive.timm_weights(made)
    expected = naive.dense(lambda x: naive.attention(x, weights, heads) + (x if skip else 0), x)
    for method in ("closed", "autograd"):
        operator = attn_jacobian(made, x, skip, method=method)
        assert (operator.dense is not None) == (method == "closed")
        assert_is(operator, expected)


@pytest.mark.parametrize(
    "kwargs", [{"qk_norm": True}, {"scale_attn_norm": True}, {"qk_norm": True, "init_values": 0.3}]
)
def test_attention_outside_eq_4_falls_back_to_autograd(kwargs) -> None:
    made, x = block(qkv_bias=True, **kwargs), tokens()
    operator = attn_jacobian(made, x)
    assert operator.dense is None
    assert_is(operator, naive.looped(lambda x: made.ls1(made.attn(x[None]))[0], x))
    with pytest.raises(InputError, match="Eq. 10 does not describe attn: Attention computes something else"):
        attn_jacobian(made, x, method="closed")


class Gated(nn.Module):
    """An attention whose view cannot tell that it is not Eq. 4: a gate on its output, or a causal mask."""

    def __init__(self, attn: nn.Module, kind: str) -> None:
        super().__init__()
        self.attn, self.kind = attn, kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "causal":
            return self.attn(x, is_causal=True)
        return self.attn(x) * torch.sigmoid(x)


@pytest.mark.parametrize("kind", ["gate", "causal"])
def test_what_a_view_does_not_tell_is_noticed(kind: str) -> None:
    made, x = block(qkv_bias=True), tokens()
    view = block_views(made)[0]
    gated = replace(view, attn=Gated(made.attn, kind))
    operator = attn_jacobian(gated, x)
    assert operator.dense is None, "the closed form of a plain attention was used"
    assert_is(operator, naive.looped(lambda x: gated.attn(x[None])[0], x))


def test_shared_key_heads() -> None:
    """Grouped-query attention: query head h uses key head h // group."""
    torch.manual_seed(0)
    d, heads, key_heads, c = 8, 4, 2, 3
    w = {
        name: torch.randn(*shape).double()
        for name, shape in {
            "w_q": (d, heads * c),
            "w_k": (d, key_heads * c),
            "w_v": (d, key_heads * c),
            "w_o": (heads * c, d),
        }.items()
    }
    b = torch.randn(key_heads * c).double()

    class Grouped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            q, k, v = x @ w["w_q"], x @ w["w_k"] + b, x @ w["w_v"]
            outputs = []
            for head in range(heads):
                part, shared = (slice(i * c, (i + 1) * c) for i in (head, head // 2))
                weights = (q[..., part] @ k[..., shared].mT * 0.7).softmax(-1)
                outputs.append(weights @ v[..., shared])
            return torch.cat(outputs, -1) @ w["w_o"]

    def linear(name: str, bias: Tensor | None = None):
        weight = w[name].T.contiguous()
        return type(view.query)(weight, bias, slice(0, len(weight)))

    view = block_views(block())[0]
    view = replace(
        view,
        dim=d,
        heads=heads,
        key_heads=key_heads,
        head_dim=c,
        logit_scale=0.7,
        attn=Grouped(),
        query=linear("w_q"),
        key=linear("w_k", b),
        value=linear("w_v"),
        output=linear("w_o"),
    )
    x = tokens(5, d)
    expected = naive.dense(view.attn, x)
    assert_is(attn_jacobian(view, x, method="closed"), expected)
    assert_is(attn_jacobian(view, torch.stack([x, x]), method="closed"), torch.block_diag(expected, expected))


def test_a_batch_is_block_diagonal() -> None:
    made = block(qkv_bias=True)
    x = torch.stack([tokens(seed=seed) for seed in (1, 2, 3)])
    expected = torch.block_diag(*(attn_jacobian(made, each).to_dense() for each in x))
    for method in ("closed", "autograd"):
        assert_is(attn_jacobian(made, x, method=method), expected)
    expected = torch.block_diag(*(mlp_jacobian(made, each).to_dense() for each in x))
    assert_is(mlp_jacobian(made, x), expected)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_base_patch14_dinov2", "deit3_small_patch16_224"])
@pytest.mark.parametrize("skip", [False, True])
def test_models_of_timm_with_and_without_skips(name: str, skip: bool) -> None:
    """Whatever skips the block has, K is the sub-block alone; a view and its block are one."""
    vit = create_model(name, skip=skip, seed=0, img_size=28, patch_size=14, embed_dim=24, num_heads=3, depth=2).double()
    view, x = block_views(vit)[1], tokens(6, 24)
    for which, jacobian in (("attn", attn_jacobian), ("mlp", mlp_jacobian)):
        part, scale = getattr(view, which), getattr(view, f"{which}_scale")
        expected = naive.looped(lambda x: scale(part(x[None]))[0], x)  # noqa: B023
        assert_is(jacobian(view, x), expected)
        assert_is(jacobian(view.block, x, skip=True), expected + torch.eye(144).double())
        assert jacobian(view, x).name.endswith(f"of blocks.1.{which}")


def test_norm_is_taken_along_on_request_and_makes_k_singular() -> None:
    made, x = block(qkv_bias=True), tokens()
    operator = attn_jacobian(made, x, norm=True)
    assert_is(operator, naive.looped(lambda x: made.attn(made.norm1(x[None]))[0], x))
    assert_is(mlp_jacobian(made, x, norm=True), naive.dense(lambda x: made.mlp(made.norm2(x[None]))[0], x))
    s = torch.linalg.svdvals(operator.to_dense())
    assert (s < 1e-12 * s[0]).sum() >= len(x), "LayerNorm takes a direction, at least, of every token"
    assert (torch.linalg.svdvals(attn_jacobian(made, x).to_dense()) < 1e-12 * s[0]).sum() == 0
    with pytest.raises(InputError, match="norm=True is outside Eq. 10"):
        attn_jacobian(made, x, norm=True, method="closed")


# K^_l


@pytest.mark.parametrize("mlp_layer", [None, GluMlp, SwiGLU])
@pytest.mark.parametrize("skip", [False, True])
def test_the_mlp_jacobian_and_its_blocks(mlp_layer, skip: bool) -> None:
    made = block(init_values=0.7, **({} if mlp_layer is None else {"mlp_layer": mlp_layer}))
    x = tokens()
    expected = naive.dense(lambda x: made.ls2(made.mlp(x)) + (x if skip else 0), x)
    operator = mlp_jacobian(made, x, skip)
    assert_is(operator, expected)
    blocks = operator.blocks()
    assert blocks.shape == (5, 12, 12)
    for token, each in enumerate(blocks):
        part = slice(12 * token, 12 * token + 12)
        assert torch.allclose(each, expected[part, part], atol=1e-12)
    values = torch.linalg.svdvals(blocks).flatten().sort(descending=True).values
    assert torch.allclose(values, torch.linalg.svdvals(expected), atol=1e-10)


def test_an_mlp_that_mixes_tokens_has_no_blocks() -> None:
    class Mixing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x) + x.roll(1, dims=1) ** 2

    view, x = replace(block_views(block())[0], mlp=Mixing()), tokens()
    operator = mlp_jacobian(view, x)
    assert operator.blocks is None
    assert_is(operator, naive.dense(lambda x: view.mlp(x[None])[0], x))


# J_l and J


def small_vit(**kwargs) -> nn.Module:
    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2}
    vit = create_model("vit_tiny_patch16_224", seed=0, **{**sizes, **kwargs}).double()
    for view in block_views(vit):
        for parameter in view.block.parameters():
            torch.nn.init.normal_(parameter, std=0.4, generator=torch.Generator().manual_seed(parameter.numel()))
    return vit


def naive_f(vit, weights: dict[str, Tensor], x: Tensor, norm: bool = False) -> Tensor:
    """f of section 4.1 from timm's own blocks, the named weights put in."""
    for index, each in enumerate(vit.blocks):
        inside = {n.removeprefix(f"{index}."): w for n, w in weights.items() if n.startswith(f"{index}.")}
        x = torch.func.functional_call(each, inside, (x,))
    return vit.norm(x) if norm else x


def by_params(vit, images: Tensor, keep, *, norm: bool = False, rows=lambda y: y) -> Tensor:
    """Dense J for the parameters whose name in `vit.blocks` is kept."""
    weights = {name: w.detach() for name, w in vit.blocks.named_parameters() if keep(name)}
    x = vit._pos_embed(vit.patch_embed(images)).detach()
    return naive.by_parameters(lambda w: rows(naive_f(vit, w, x, norm)).flatten(), weights)


KEPT = {
    "all": lambda name: True,
    "blocks.0": lambda name: name.startswith("0."),
    "blocks.0.attn": lambda name: name.startswith(("0.attn.", "0.norm1", "0.ls1")),
    "blocks.1.attn": lambda name: name.startswith(("1.attn.", "1.norm1", "1.ls1")),
    "blocks.1.mlp": lambda name: name.startswith(("1.mlp.", "1.norm2", "1.ls2")),
}


@pytest.mark.parametrize("params", KEPT)
@pytest.mark.parametrize("kwargs", [{}, {"skip": True, "init_values": 0.5}])
def test_the_parameter_jacobian(params: str, kwargs) -> None:
    vit, images = small_vit(**kwargs), torch.randn(2, 3, 8, 8, dtype=torch.double)
    operator = param_jacobian(vit, images, params, tokens=[0, 3], outputs=[1, 2, 5])
    expected = by_params(vit, images, KEPT[params], rows=lambda y: y[:, [0, 3]][..., [1, 2, 5]])
    assert operator.shape == (12, expected.shape[1])
    v, u = torch.randn(expected.shape[1]).double(), torch.randn(12).double()
    assert (operator.to_dense() - expected).norm() <= TOLERANCE * expected.norm()
    assert (operator.matvec(v) - expected @ v).norm() <= TOLERANCE * (expected @ v).norm()
    assert (operator.rmatvec(u) - expected.T @ u).norm() <= TOLERANCE * (expected.T @ u).norm()


def test_all_sub_blocks_are_the_columns_of_all() -> None:
    """Section 4.2: p is the sum of all p_l."""
    vit, images = small_vit(), torch.randn(1, 3, 8, 8, dtype=torch.double)
    names = [f"blocks.{index}.{which}" for index in (0, 1) for which in ("attn", "mlp")]
    parts = [param_jacobian(vit, images, name, tokens=[1]) for name in names]
    whole = param_jacobian(vit, images, tokens=[1])
    assert sum(part.shape[1] for part in parts) == whole.shape[1] == sum(p.numel() for p in vit.blocks.parameters())
    gram = sum(part.to_dense() @ part.to_dense().T for part in parts)
    assert torch.allclose(whole.to_dense() @ whole.to_dense().T, gram, rtol=1e-9)
    bare = param_jacobian(vit, images, names, tokens=[1], norms=False)
    assert whole.shape[1] - bare.shape[1] == 2 * 2 * 2 * 8, "two norms a block, weight and bias"


def test_the_final_norm_is_a_choice() -> None:
    images = torch.randn(1, 3, 8, 8, dtype=torch.double)
    vit = small_vit(init_values=0.5)
    nn.init.normal_(vit.norm.weight)
    expected = by_params(vit, images, KEPT["blocks.1.mlp"], norm=True)
    found = param_jacobian(vit, images, "blocks.1.mlp", final_norm=True).to_dense()
    assert (found - expected).norm() <= TOLERANCE * expected.norm()
    with pytest.raises(InputError, match="no norm follows the last block"):
        param_jacobian(small_vit(global_pool="avg"), images, final_norm=True)


# The model is left alone


def test_mode_flags_gradients_and_hooks_are_left_as_they_were() -> None:
    vit = small_vit(skip=True, attn_drop_rate=0.5, proj_drop_rate=0.5, pos_drop_rate=0.5, drop_path_rate=0.5)
    vit.train()
    vit.blocks[1].eval()
    images, x = torch.randn(1, 3, 8, 8, dtype=torch.double), tokens(5, 8)
    vit(images).sum().backward()
    before = [(m.training, getattr(m, "fused_attn", None), len(m._forward_pre_hooks)) for m in vit.modules()]
    grads = [p.grad.clone() for p in vit.parameters()]
    state = torch.random.get_rng_state()
    found = [
        param_jacobian(vit, images, tokens=[0], outputs=[0]),
        attn_jacobian(vit.blocks[0], x, method="autograd"),
        attn_jacobian(vit.blocks[0], x),
        mlp_jacobian(vit.blocks[0], x),
    ]
    first = [operator.matvec(torch.ones(operator.shape[1]).double()) for operator in found]
    again = [operator.matvec(torch.ones(operator.shape[1]).double()) for operator in found]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)), "dropout was on"
    assert before == [(m.training, getattr(m, "fused_attn", None), len(m._forward_pre_hooks)) for m in vit.modules()]
    assert all(torch.equal(p.grad, g) for p, g in zip(vit.parameters(), grads, strict=True))
    assert all(p.requires_grad for p in vit.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_operator_keeps_the_weights_and_tokens_that_it_was_made_at() -> None:
    vit, x, images = small_vit(), tokens(5, 8), torch.randn(1, 3, 8, 8, dtype=torch.double)
    found = [
        attn_jacobian(vit.blocks[0], x),
        attn_jacobian(vit.blocks[0], x, method="autograd"),
        mlp_jacobian(vit.blocks[0], x),
        param_jacobian(vit, images, "blocks.0.attn", outputs=[0]),
    ]
    before = [operator.matvec(torch.ones(operator.shape[1]).double()) for operator in found]
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.mul_(2)
    x.zero_()
    for operator, expected in zip(found, before, strict=True):
        assert torch.equal(operator.matvec(torch.ones(operator.shape[1]).double()), expected)


@pytest.mark.parametrize(
    "context", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)]
)
def test_contexts_of_a_training_loop_change_nothing(context) -> None:
    made, x = block(qkv_bias=True).float(), tokens().float()
    v = torch.ones(60)
    for build in (attn_jacobian, mlp_jacobian, lambda b, x: attn_jacobian(b, x, method="autograd")):
        expected = build(made, x).matvec(v), build(made, x).rmatvec(v)
        with context():
            operator = build(made, x)
            found = operator.matvec(v), operator.rmatvec(v)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert found[0].dtype == torch.float32


def test_float32_is_float64_rounded() -> None:
    made, x = block(qkv_bias=True), tokens()
    expected = attn_jacobian(made, x).to_dense()
    found = attn_jacobian(made.float(), x.float())
    assert found.dtype == torch.float32
    assert (found.to_dense() - expected).norm() <= 1e-5 * expected.norm()


def test_vanishing_attention_weights_are_no_denormal_numbers() -> None:
    """Peaked rows have weights of e^-100; products with such numbers are a hundred times slower."""
    made = block(qkv_bias=True).float()
    primal = attention.AttentionPrimal.at(block_views(made)[0], 6 * tokens(40).float()[None])
    smallest = primal.a[primal.a > 0].min()
    assert (primal.a == 0).any()
    assert smallest > 1e-32


# What is refused


@pytest.mark.parametrize("jacobian", [attn_jacobian, mlp_jacobian])
def test_bad_blocks_and_tokens_are_named(jacobian, unchecked) -> None:
    made, x = block(), tokens()
    with pytest.raises(InputError, match="no adapter for `Linear`"):
        jacobian(nn.Linear(2, 2), x)
    with pytest.raises(InputError, match=r"VisionTransformer has 2 blocks, of which one is wanted"):
        jacobian(small_vit(), x)
    with pytest.raises(InputError, match=r"tokens x are \(5, 10\): give \(n, 12\)"):
        jacobian(made, x[:, :10])
    with pytest.raises(InputError, match=r"tokens x are \(12,\)"):
        jacobian(made, x[0])
    with pytest.raises(InputError, match=r"the tokens, is empty, \(0, 12\)"):
        jacobian(made, x[:0])
    with pytest.raises(InputError, match="values that are not finite"):
        jacobian(made, x / 0)
    with pytest.raises(InputError, match=r"torch.float16: convert with .float\(\)"):
        jacobian(made, x.half())
    with pytest.raises(InputError, match=r"x is torch.float32 and .*weight torch.float64: convert"):
        jacobian(made, x.float())
    with pytest.raises(InputError, match="meta device: give values"):
        jacobian(made, x.to("meta"))
    with pytest.raises(InputError, match=r"weight is torch.bfloat16: in half precision .* model.float\(\)"):
        jacobian(block().bfloat16(), x)
    with pytest.raises(InputError, match="weight is on the meta device: materialise"):
        jacobian(block().to("meta"), x)
    for parameter in made.parameters():
        parameter.data[0] = float("nan")
    with pytest.raises(InputError, match=r"(attn.qkv|mlp.fc1).weight is not finite"):
        jacobian(made, x)


def test_bad_choices_are_named(unchecked) -> None:
    vit, images = small_vit(), torch.randn(1, 3, 8, 8, dtype=torch.double)
    with pytest.raises(InputError, match=r"method='fast' is not one of 'auto', 'closed', 'autograd'"):
        attn_jacobian(vit.blocks[0], tokens(5, 8), method="fast")
    with pytest.raises(InputError, match=r"params='blocks.7.attn' is no sub-block; .*'blocks.0' to 'blocks.1'"):
        param_jacobian(vit, images, "blocks.7.attn")
    with pytest.raises(InputError, match="params is empty"):
        param_jacobian(vit, images, [])
    for positions in ([], [5], [0, 0], [0, -5]):
        with pytest.raises(InputError, match="give positions from 0 to 4, at least one, none twice"):
            param_jacobian(vit, images, tokens=positions)
    with pytest.raises(InputError, match=r"images is empty, \(0, 3, 8, 8\)"):
        param_jacobian(vit, images[:0])
    with pytest.raises(InputError, match="images has values that are not finite"):
        param_jacobian(vit, images * float("nan"))
    with pytest.raises(InputError, match=r"images is torch.float16: convert with .float\(\)"):
        param_jacobian(vit, images.half())
    with pytest.raises(InputError, match=r"the model refuses images of shape \(1, 3, 9, 9\)"):
        param_jacobian(vit, torch.zeros(1, 3, 9, 9).double())
    with pytest.raises(InputError, match=r"head.weight is on the meta device"):
        vit.head.to("meta")
        param_jacobian(vit, images)
    with pytest.raises(InputError, match="no adapter for `ResNet`"):
        param_jacobian(timm.create_model("resnet18"), images)


def test_the_size_of_vit_small() -> None:
    """n = 197, d = 384, 6 heads, float32: closed form and autograd agree."""
    vit = create_model("vit_small_patch16_224", depth=1, seed=0)
    x = torch.randn(197, 384, generator=torch.Generator().manual_seed(0))
    v = torch.randn(197 * 384, generator=torch.Generator().manual_seed(1))
    closed, autograd = (attn_jacobian(vit.blocks[0], x, method=method) for method in ("closed", "autograd"))
    for a, b in ((closed.matvec(v), autograd.matvec(v)), (closed.rmatvec(v), autograd.rmatvec(v))):
        assert (a - b).norm() <= 1e-5 * b.norm()
