"""Every family's blocks against formulas, and what is drawn read back through the library's own modules."""

import itertools

import pytest
import torch
from reference import hf_twins
from reference.hf_models import FAMILIES

from skipless import SkiplessInit
from skipless.models import block_views, initialize_, remove_skips_

SKIPS = [sub_blocks for count in (0, 1, 2) for sub_blocks in itertools.combinations(("attn", "mlp"), count)]


def _hidden(model, inputs):
    """The tokens before and after the first block, as the model hands them from block to block."""
    found = {}
    first = block_views(model)[0].block

    def before(_module, args, kwargs):
        found["before"] = args[0] if args else kwargs["hidden_states"]

    def after(_module, _args, output):
        found["after"] = output

    handles = first.register_forward_pre_hook(before, with_kwargs=True), first.register_forward_hook(after)
    with torch.no_grad():
        model(inputs)
    for handle in handles:
        handle.remove()
    return found["before"], found["after"]


@pytest.mark.parametrize("removed", SKIPS, ids="-".join)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_block_is_its_formula_with_and_without_each_skip(name, removed):
    family = FAMILIES[name]
    model = family.build()
    if removed:
        remove_skips_(model, removed, layer_scale="keep")
    x, y = _hidden(model, family.inputs())
    view = block_views(model)[0]
    assert view.skips == tuple(part for part in ("attn", "mlp") if part not in removed)
    weights = dict(view.block.state_dict())
    skips = {"attn_skip": "attn" in view.skips, "mlp_skip": "mlp" in view.skips}
    expected = hf_twins.block(family.kind, weights, model.config, x, **skips)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", FAMILIES)
def test_removing_skips_keeps_keys_and_loads_both_ways(name):
    family = FAMILIES[name]
    residual, skipless = family.build(), remove_skips_(family.build(1), layer_scale="keep")
    assert list(skipless.state_dict()) == list(residual.state_dict())
    skipless.load_state_dict(residual.state_dict())
    residual.load_state_dict(skipless.state_dict())
    x = family.inputs()
    with torch.no_grad():
        assert not torch.allclose(skipless(x)[0], residual(x)[0])


def _maps(view, kind):
    """W_Q, W_K, W_V, W_O and the MLP's maps, by what the modules make of the rows of I."""
    block, eye = view.block, torch.eye(view.dim, dtype=torch.float64)
    with torch.no_grad():
        if kind == "gpt2":
            q, k, v = block.attn.c_attn(eye).chunk(3, dim=-1)
            return q, k, v, block.attn.c_proj(eye), block.mlp.c_fc(eye), block.mlp.c_proj(torch.eye(64).double())
        if kind == "bert":
            own, out, hidden = block.attention.self, block.attention.output.dense, block.output.dense
            maps = (own.query(eye), own.key(eye), own.value(eye), out(eye), block.intermediate.dense(eye))
            return *maps, hidden(torch.eye(24).double())
        attn = block.self_attn if kind == "llama" else block.attention
        inner = torch.eye(attn.o_proj.in_features, dtype=torch.float64)
        heads = (attn.q_proj(eye), attn.k_proj(eye), attn.v_proj(eye), attn.o_proj(inner))
        names = [name for name in ("gate_proj", "up_proj", "down_proj", "fc1", "fc2") if hasattr(block.mlp, name)]
        linears = [getattr(block.mlp, name) for name in names]
        return *heads, *(each(torch.eye(each.in_features).double()) for each in linears)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_drawn_is_read_back_through_the_modules(name):
    family = FAMILIES[name]
    model = remove_skips_(family.build())
    init = SkiplessInit(1.8, 1.0, 3.0, grouped="repeated")
    initialize_(model, init, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    for view in block_views(model):
        w_q, w_k = init.query_key(view.dim, view.heads, view.head_dim, view.key_heads, generator)
        inner = view.key_heads * view.head_dim
        w_v, w_o = init.value_output(view.dim, inner, generator)
        maps = [init.mlp_map(*linear.w.shape, generator) for linear in (*view.mlp_in, view.mlp_out)]
        q, k, v, o, *mlp = _maps(view, family.kind)
        shared = view.heads // view.key_heads
        heads = range(view.heads)
        width = view.head_dim
        for head in heads:
            mine, key = (
                slice(head * width, (head + 1) * width),
                slice(head // shared * width, (head // shared + 1) * width),
            )
            torch.testing.assert_close(q[:, mine] @ k[:, key].T, w_q[:, mine] @ w_k[:, key].T)
        together = v.unflatten(1, (view.key_heads, width)).repeat_interleave(shared, dim=1).flatten(1) @ o
        torch.testing.assert_close(together, w_v @ w_o)
        for found, expected in zip(mlp, maps, strict=True):
            torch.testing.assert_close(found, expected)
