"""The scheme in every family: weights read back as drawn, attention with the asked diagonal where tokens are turned."""

import copy

import pytest
import torch
from reference.vision_models import VITS, encoder, images, randomised
from reference.vision_twins import NaiveBlock, context_of, layer_norm, read
from torch import nn

from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.models import block_views, calibrate_, initialize_, inspect_init, remove_skips_, set_positions_
from skipless.models.vit_view import enter, find_vit

INIT = SkiplessInit(alpha=1.5, beta=0.7, c=2.0)
ENCODERS = {"pre-norm": True, "post-norm": False}


def built(family: str) -> nn.Module:
    torch.manual_seed(0)
    if family in ENCODERS:
        return encoder(norm_first=ENCODERS[family], batch_first=False)
    return VITS[family]()


@pytest.mark.parametrize("family", [*VITS, *ENCODERS])
def test_matrices_read_back_as_drawn(family: str) -> None:
    """Read off the library's weights by hand, against the same draws: a transposed or shifted map would differ."""
    model = initialize_(randomised(remove_skips_(built(family))), INIT, generator=torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    for view in block_views(model):
        naive, (dim, heads, size) = read(view.block), (view.dim, view.heads, view.head_dim)
        w_q, w_k = INIT.draw_query_key(dim, heads, size, heads, generator, None)()
        w_v, w_o = INIT.draw_value_output(dim, heads * size, generator, None)()
        for (found, bias), drawn in zip((naive.q, naive.k, naive.v, naive.o), (w_q, w_k, w_v, w_o), strict=True):
            torch.testing.assert_close(found, drawn, rtol=1e-12, atol=1e-12)
            assert bias is None or not bias.any()
        for (found, bias), linear in zip(in_order(naive, view), (*view.mlp_in, view.mlp_out), strict=True):
            drawn = INIT.draw_mlp_map(*linear.w.shape, generator, None)()
            torch.testing.assert_close(found, drawn[0] if isinstance(drawn, tuple) else drawn, rtol=1e-12, atol=1e-12)
            assert bias is None or not bias.any()
        gammas = [view.block.get_parameter(name) for name in view.layer_scales]
        assert not gammas, "removed with the skips"


def in_order(naive: NaiveBlock, view) -> list:
    """The MLP's maps in the library's order; the twin has the gate first."""
    first = naive.mlp_in if view.gate in (None, 0) else naive.mlp_in[::-1]
    return [*first, naive.mlp_out]


@pytest.mark.parametrize("family", [*VITS, *ENCODERS])
def test_every_parameter_of_a_block_has_a_rule(family: str) -> None:
    """All are written but LayerScale, which keeps its value where it stays; nothing outside blocks is touched."""
    model = randomised(remove_skips_(built(family), layer_scale="keep"))
    before = copy.deepcopy(dict(model.named_parameters()))
    initialize_(model, INIT)
    report = inspect_init(model, INIT)
    scales = {f"{view.name}.{name}" for view in block_views(model) for name in view.layer_scales}
    inside = tuple(f"{view.name}." for view in block_views(model))
    for name, parameter in model.named_parameters():
        same = torch.equal(parameter, before[name])
        assert same == (name in scales or not name.startswith(inside)), name
    told = {flag for flag in report.flags if not flag.endswith("LayerScale") and "qk-norm" not in flag}
    assert {flag for flag in told if "diffuse" not in flag} == set()


@pytest.mark.parametrize("family", VITS)
def test_positions_by_relative_place_start_at_nothing(family: str) -> None:
    model = randomised(remove_skips_(built(family)))
    tables = [view.block.get_parameter(name) for view in block_views(model) for name in view.position_biases]
    assert len(tables) == (2 if family in ("beit", "beit, both") else 0)
    assert any("relative_position_bias_table is not 0" in flag for flag in inspect_init(model).flags) == bool(tables)
    initialize_(model, INIT)
    assert not any(table.any() for table in tables)


@pytest.mark.parametrize("family", VITS)
def test_the_asked_diagonal_is_that_of_the_models_own_attention(family: str) -> None:
    """Solved with rotations and biases in the logits; the twin finds it on the tokens that reach each block."""
    model = randomised(remove_skips_(built(family)))
    initialize_(model, SkiplessInit(0.0, 1.0))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "relative_position" in name:
                parameter.normal_(std=0.5)
    given = images(4)
    calibrate_(model, 0.6, images=given)
    report = inspect_init(model, images=given)
    tokens, views = enter(find_vit(model), given)
    for index, view in enumerate(views):
        naive = read(view.block, **context_of(model, index))
        with torch.no_grad():
            maps = torch.stack([naive.maps(layer_norm(one, naive.norm1)) for one in tokens])
            tokens = view.run(tokens)
        mean = maps.diagonal(dim1=-2, dim2=-1).mean().item()
        assert abs(mean - report.attention_diagonal[index]) < 1e-6
        assert abs(mean - 0.6) < 2e-3, family


@pytest.mark.parametrize("family", [*VITS, *ENCODERS])
def test_our_scheme_suits_every_family(family: str) -> None:
    model = remove_skips_(built(family))
    scheme = SkiplessInit.for_model(model)
    flags = inspect_init(initialize_(model, scheme), scheme).flags
    assert [flag for flag in flags if "qk-norm" not in flag] == []
    assert (scheme.positions == "kept") == (family in ENCODERS)


@pytest.mark.parametrize("family", VITS)
def test_positions_are_set_where_the_library_keeps_them(family: str) -> None:
    model = set_positions_(built(family), "smooth", generator=torch.Generator().manual_seed(0))
    found = find_vit(model)
    tokens, _ = enter(found, torch.zeros(1, 3, 16, 16))
    prefix = tokens[0, : found.prefix]
    sizes = prefix.square().sum(-1)
    if not isinstance(
        found.transformer.get_submodule("norm_pre") if hasattr(model, "norm_pre") else None, nn.LayerNorm
    ):
        torch.testing.assert_close(sizes, sizes[:1].expand_as(sizes), rtol=1e-4, atol=1e-6)
        angles = prefix @ prefix.T
        torch.testing.assert_close(angles, torch.diag(angles.diagonal()), rtol=0, atol=1e-4 * sizes[0].item() + 1e-9)
    assert prefix.shape[0] == {"dinov3": 5, "dinov3, swiglu": 5, "deit": 2}.get(family, 1)


@pytest.mark.usefixtures("unchecked")
def test_images_of_another_size_are_refused_where_positions_are_of_one() -> None:
    for family in ("torchvision", "beit"):
        with pytest.raises(InputError, match=r"images of 24 x 24: `\w+` takes those of \(16, 16\) only"):
            inspect_init(VITS[family](), images=images(1, 24).float())
