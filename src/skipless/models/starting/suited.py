"""The scheme beyond the paper, chosen for a model's depth and parts."""

from dataclasses import replace

from torch import nn

from skipless.errors import InputError
from skipless.init import SkiplessInit, solve_linearity
from skipless.init.correlation_map import odd_slope
from skipless.init.gated import check_gated
from skipless.init.mirrored import check_mirrored
from skipless.init.mirrored_gated import check_mirrored_gated
from skipless.init.scheme import COSINE
from skipless.models.blocks import BlockView
from skipless.models.starting.attention_diagonal import check_scalable
from skipless.models.surgery import block_views
from skipless.models.text_view import find_texts
from skipless.models.vit_view import find_vit


def suited_init(model: nn.Module) -> SkiplessInit:
    """What `SkiplessInit.for_model` gives.

    Raises:
        InputError: if no adapter knows the model.
    """
    views = block_views(model)
    near_linear = all(_may_be_linear(view) for view in views)
    suited = SkiplessInit.for_any()
    if not near_linear:
        suited = replace(suited, mlp="orthogonal")
    elif views[0].gate is None:
        suited = replace(suited, mlp_linearity=solve_linearity(views[0].activation, len(views), COSINE))
    if any(view.key_heads != view.heads and view.key_heads * view.head_dim < view.dim for view in views):
        suited = replace(suited, grouped="repeated")
    if not all(_may_be_scaled(view) for view in views):
        suited = replace(suited, attention_diagonal=None, last_diagonal=None)
    elif find_texts(model):  # what is predicted at every token wants its neighbours whole, not their mean (LOG.md)
        suited = replace(suited, last_diagonal=None)
    return suited if _has_positions(model) else replace(suited, positions="kept")


def _may_be_linear(view: BlockView) -> bool:
    """Whether the MLP can start near a rotation."""
    hidden = view.mlp_out.w.shape[0]
    try:
        if view.gate is not None:
            if view.mlp_in[view.gate].bias is None:
                check_mirrored_gated(view.dim, hidden, view.activation)
            else:
                check_gated(view.dim, hidden)
            return True
        check_mirrored(view.dim, hidden)
        odd_slope(view.activation)
    except InputError:
        return False
    return True


def _may_be_scaled(view: BlockView) -> bool:
    """Whether the attention's logits can be scaled."""
    try:
        check_scalable(view)
    except InputError:
        return False
    return True


def _has_positions(model: nn.Module) -> bool:
    """Whether the model embeds positions, or has prefix tokens, that can be set."""
    try:
        places = find_vit(model).positions
    except InputError:
        return False
    return places.embedding is not None or bool(places.prefix)
