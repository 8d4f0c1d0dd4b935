"""finish_: a library's residual model made what a recipe asks for, whichever library it is of."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from skipless.choices import Positions
from skipless.init import SkiplessInit
from skipless.models.attention_config import AttentionConfig
from skipless.models.blocks import SubBlock
from skipless.models.skip_gains import ZERO_UP_TO, decayed_gains, set_skip_gains_, zero_branches_
from skipless.models.starting.attention_start import put_attention_, start_attention_
from skipless.models.starting.initialization import initialize_
from skipless.models.starting.positions import set_positions_
from skipless.models.surgery import block_views, remove_skips_

SOFTMAX = AttentionConfig()


def finish_(
    model: nn.Module,
    *,
    skip: bool = True,
    init: SkiplessInit | Literal["ours"] | None = None,
    positions: Positions = "kept",
    sub_blocks: Sequence[SubBlock] = ("attn", "mlp"),
    attention: AttentionConfig = SOFTMAX,
    skip_gain: float = 1.0,
    blank: bool = False,
) -> nn.Module:
    """Make a library's residual model one of the three rows of Table 1, in place, with another core where one is asked.

    Args:
        model: of a library, with its skips and its softmax.
        skip: keep the skips.
        init: the scheme; None leaves the library's own initialisation.
        positions: without `init`, what position embeddings and prefix tokens start as.
        sub_blocks: the sub-blocks whose skips are left out if `skip` is False.
        attention: what stands for the softmax.
        skip_gain: what the skips of the last block multiply their tokens by; those before it rise to 1.
        blank: all weights will be overwritten: nothing is solved that a checkpoint has.

    Raises:
        InputError: for whatever `remove_skips_`, `set_positions_`, `replace_attention_` and `initialize_` refuse.
    """
    if not skip:
        remove_skips_(model, sub_blocks)
    put_attention_(model, attention)
    if positions != "kept":
        set_positions_(model, positions)
    scheme = SkiplessInit.for_model(model) if init == "ours" else init
    if scheme is not None:
        initialize_(model, scheme)
    if skip_gain != 1:
        set_skip_gains_(model, decayed_gains(len(block_views(model)), skip_gain))
        if skip_gain <= ZERO_UP_TO and not blank:
            zero_branches_(model)
    return model if blank else start_attention_(model, attention)
