"""f of section 4.1: the stack of blocks alone as a module, and the tokens that enter it."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from skipless.conditioning.operators.autodiff import math_attention
from skipless.conditioning.operators.given import run_model, shape_of
from skipless.errors import InputError
from skipless.models.blocks import BlockView
from skipless.models.calls import first_tensor
from skipless.models.eval_mode import evaluating
from skipless.models.starting.first_tokens import Given

BlockCall = tuple[tuple[Any, ...], dict[str, Any]]  # the arguments of a block besides its tokens


class BlockStack(nn.Module):
    """A sequence of blocks, each called as its model calls it, and an optional final norm."""

    def __init__(self, views: Sequence[BlockView], norm: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(view.block for view in views)
        self.norm = nn.Identity() if norm is None else norm
        self.sequence_first = views[0].sequence_first

    def forward(self, x: Float[Tensor, "b n d"], calls: Sequence[BlockCall]) -> Float[Tensor, "b n d"]:
        """Tokens to tokens."""
        x = x.transpose(0, 1) if self.sequence_first else x
        for block, (args, kwargs) in zip(self.blocks, calls, strict=True):
            x = first_tensor(block(x, *args, **kwargs))
        return self.norm(x.transpose(0, 1) if self.sequence_first else x)


def select_parameters(views: Sequence[BlockView], params: str | Sequence[str], norms: bool) -> tuple[int, list[str]]:
    """Position of the first block with a selected parameter, and the names of all in the `BlockStack` from there on.

    Raises:
        InputError: if a name is neither `"all"`, nor a block, nor one of its two sub-blocks.
    """
    wanted = [params] if isinstance(params, str) else list(params)
    known = {name for view in views for name in (view.name, f"{view.name}.attn", f"{view.name}.mlp")}
    for name in wanted:
        if name not in known | {"all"}:
            last = views[-1].name
            raise InputError(
                f"params={name!r} is no sub-block; give 'all', a block ({views[0].name!r} to {last!r}), or one of its "
                f"sub-blocks ('{last}.attn', '{last}.mlp')"
            )
    if not wanted:
        raise InputError("params is empty; give 'all' or the names of sub-blocks, 'blocks.0.attn'")
    names = [(index, name) for index, view in enumerate(views) for name in _parameter_names(view, wanted, norms)]
    if not names:
        raise InputError(f"{', '.join(wanted)} has no parameters")
    first = names[0][0]
    return first, [f"blocks.{index - first}.{name}" for index, name in names]


def trace_block_stack(
    model: nn.Module, given: Given, views: Sequence[BlockView], final_norm: bool
) -> tuple[Float[Tensor, "b n d"], list[BlockCall], nn.Module | None]:
    """Record a forward pass: the tokens entering the first block, each block's other arguments, and the final norm.

    Raises:
        InputError: if the model refuses what is given, does not call its blocks in this order, or has no final norm but
            `final_norm` asks for it.
    """
    trace = _ForwardTrace(views)
    handles = [view.block.register_forward_pre_hook(trace.block, with_kwargs=True) for view in views]
    if final_norm:
        inside = {id(module) for view in views for module in view.block.modules()}
        handles.append(views[-1].block.register_forward_hook(trace.last))
        outside = [module for module in model.modules() if id(module) not in inside]
        handles += [module.register_forward_pre_hook(trace.after) for module in outside]
    forward_with_hooks(model, given, handles)
    return trace.result(final_norm)


def forward_with_hooks(model: nn.Module, given: Given, handles: Sequence[RemovableHandle]) -> None:
    """Run a model's forward pass in eval mode with hooks attached, then remove the hooks.

    Raises:
        InputError: if the model refuses what is given.
    """
    try:
        with evaluating(model), math_attention(given.device), torch.no_grad():
            run_model(model, given)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise InputError(f"the model refuses {shape_of(given)}: {error}") from error
    finally:
        for handle in handles:
            handle.remove()


class _ForwardTrace:
    """What the hooks of one forward pass recorded."""

    def __init__(self, views: Sequence[BlockView]) -> None:
        self.blocks = [view.block for view in views]
        self.sequence_first = views[0].sequence_first
        self.called: list[nn.Module] = []
        self.calls: list[BlockCall] = []
        self.tokens: Tensor | None = None
        self.output: Tensor | None = None
        self.norm: nn.Module | None = None

    def block(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self.called:
            self.tokens = _batch_first(args[0], self.sequence_first).detach().clone()
        self.called.append(module)
        self.calls.append((args[1:], kwargs))

    def last(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.output = first_tensor(output)

    def after(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Take the first module that receives the last block's output as the norm."""
        if self.norm is None and self.output is not None and args and args[0] is self.output:
            self.norm = module

    def result(self, final_norm: bool) -> tuple[Tensor, list[BlockCall], nn.Module | None]:
        if self.tokens is None or [id(m) for m in self.called] != [id(m) for m in self.blocks]:
            raise InputError("the model does not call its blocks one after another, each once: it has no f(x)")
        if final_norm and "norm" not in type(self.norm).__name__.lower():
            raise InputError(f"no norm follows the last block (there is {type(self.norm).__name__}): final_norm=False")
        return self.tokens, self.calls, self.norm


def _batch_first(tokens: Tensor, sequence_first: bool) -> Tensor:
    return tokens.transpose(0, 1) if sequence_first else tokens


def _parameter_names(view: BlockView, wanted: Sequence[str], norms: bool) -> list[str]:
    """Names, within the block, of the selected parameters."""
    outside = () if norms else (view.attn_norm, view.mlp_norm)
    left_out = {id(p) for module in outside for p in module.parameters()}
    parts = {
        f"{view.name}.attn": (view.attn, view.attn_scale, view.attn_norm),
        f"{view.name}.mlp": (view.mlp, view.mlp_scale, view.mlp_norm),
        view.name: (view.block,),
        "all": (view.block,),
    }
    inside = {id(p) for name in wanted for module in parts.get(name, ()) for p in module.parameters()} - left_out
    return [name for name, parameter in view.block.named_parameters() if id(parameter) in inside]
