"""The activations of a block: inputs of its linear maps, queries, keys, values, probabilities, and what it adds up."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from skipless.models.blocks import BlockView, LinearMap
from skipless.models.starting.attention_diagonal import attention_matrices, grouped, queries_keys
from skipless.models.vit_view import project

SITES = {
    "tokens": "tokens that enter the block: the residual stream, where there are skips",
    "attention in": "input of W_Q, W_K and W_V",
    "q": "queries, as they meet keys: normed and rotated where the block does so",
    "k": "keys, likewise",
    "v": "values",
    "probabilities": "attention matrices, of softmax or another core; entries of tokens that a mask hides are 0",
    "heads": "input of W_O",
    "attention out": "what attention gives, before a skip is added",
    "middle": "the sum of tokens and attention; without the skip, attention alone",
    "MLP in": "input of the MLP's first maps",
    "hidden": "input of the MLP's last map",
    "MLP out": "what the MLP gives, before a skip is added",
}
"""Where activations of a block are measured, in the order of computation, and what is there."""

LAST = "tokens out"


def run_block(view: BlockView, x: Float[Tensor, "b n d"]) -> tuple[dict[str, Tensor], Tensor]:
    """Every site of a block on the tokens that enter it, and the tokens that leave it.

    Each sub-block is run once, by the library's own code. What only its attention sees is computed from its input.
    """
    h = view.attn_norm(x)
    found: dict[str, Tensor] = {"tokens": x, "attention in": h}
    q, k = queries_keys(view, h)
    v = project(h, view.value).unflatten(-1, (view.key_heads, -1)).transpose(1, 2)
    a = attention_matrices(view, h)
    found |= {"q": _side_by_side(q), "k": _side_by_side(k), "v": _side_by_side(v), "probabilities": a.flatten(1, 2)}
    with capturing(view, {"heads": view.output, "hidden": view.mlp_out}) as captured:
        attended = view.attn_scale(view.attend(h))
        found["attention out"] = attended
        found["middle"] = view.join(x, attended, "attn")
        found["MLP in"] = view.mlp_norm(found["middle"])
        found["MLP out"] = view.mlp_scale(view.mlp(found["MLP in"]))
    if "heads" not in captured:
        captured["heads"] = _side_by_side(a @ grouped(view, v))
    if "hidden" not in captured:
        captured["hidden"] = _hidden(view, found["MLP in"])
    found |= captured
    # A post-norm block ends with a norm that is its own.
    leaving = view.run(x) if view.post_norm else view.join(found["middle"], found["MLP out"], "mlp")
    return {name: found[name] for name in SITES}, leaving


@contextmanager
def capturing(view: BlockView, maps: dict[str, LinearMap]) -> Iterator[dict[str, Tensor]]:
    """The inputs of some maps of a block, where the block calls modules for them."""
    captured: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name, linear in maps.items():
            for module in view.block.modules():
                if getattr(module, "weight", None) is linear.weight:

                    def keep(_: nn.Module, args: tuple[Any, ...], name: str = name) -> None:
                        captured[name] = args[0]

                    hooks.callback(module.register_forward_pre_hook(keep).remove)
        yield captured


def _side_by_side(x: Float[Tensor, "b h n k"]) -> Float[Tensor, "b n d"]:
    return x.transpose(1, 2).flatten(2)


def _hidden(view: BlockView, h: Tensor) -> Tensor:
    """The MLP between its maps, by the block's description."""
    inner = [project(h, one) for one in view.mlp_in]
    if view.gate is None:
        return view.activation(inner[0])
    return view.activation(inner[view.gate]) * inner[1 - view.gate]


def run_blocks(views: list[BlockView], x: Tensor) -> Iterator[tuple[str, str, Tensor]]:
    """Run blocks one after the other: `(block, site, activations)` of each, and last the tokens that leave them."""
    for view in views:
        found, x = run_block(view, x)
        for site, values in found.items():
            yield view.name, site, values
    yield views[-1].name, LAST, x
