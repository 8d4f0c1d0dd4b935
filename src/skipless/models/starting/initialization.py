"""initialize_: the paper's initialisation, or ours, put into a model, whichever library it is of.

Random matrices are drawn in the order of the generator, and factorised by several threads. Each factorisation has one
thread: several on one of these small matrices gain little, and wait for each other where the processor is busy.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.init.context_heads import (
    context_count,
    draw_parted_value_output,
    draw_turned_rotation,
    solve_turn,
)
from skipless.init.correlation_map import odd_slope
from skipless.init.gated import GATE_BIAS, check_gated, draw_gated_mlp
from skipless.init.mirrored import check_mirrored, draw_mirrored_mlp
from skipless.init.mirrored_gated import check_mirrored_gated, draw_mirrored_gated_mlp, solve_gate_scale
from skipless.init.random_matrices import LARGE
from skipless.models.adapters.known import find_blocks, supported
from skipless.models.blocks import BlockView, LinearMap
from skipless.models.starting.attention_diagonal import check_scalable
from skipless.models.starting.calibration import calibrate_
from skipless.models.starting.first_tokens import check_taken, one_of
from skipless.models.starting.positions import check_positions, patch_rms, set_positions_
from skipless.models.surgery import block_views
from skipless.progress import progress_bar

_QUIET_S = 2.0  # shorter initialisations show no progress
_AHEAD = 4  # blocks whose matrices are drawn and not yet written; bounds memory, 230 MB each at d = 1,024

# Maps of a block that are factorised together, and the function that does it.
Drawn = tuple[tuple[LinearMap, ...], Callable[[], tuple[Tensor, ...]]]
Factorised = tuple[tuple[LinearMap, ...], tuple[Tensor, ...]]


@torch.no_grad()
def initialize_(
    model: nn.Module,
    init: SkiplessInit | None = None,
    *,
    images: Float[Tensor, "b c h w"] | None = None,
    inputs: Int[Tensor, "b n"] | None = None,
    generator: Generator | None = None,
    device: torch.device | str | None = None,
    progress: bool | None = None,
) -> nn.Module:
    """Give every block the paper's initialisation, in place (section 5; MLP: section 6.1), or what `init` says beyond.

    `init` draws W_Q, W_K, W_V, W_O and the MLP. Biases are set to 0, those by relative position too, and norms to the
    identity. Any other parameter of a block is an error, except that LayerScale keeps its value. Patch embedding, class
    and register tokens, final norm, attention pooling and head keep the library's values, because the paper says
    nothing about them. With `init.positions` the position embedding and the prefix tokens are set too, and with
    `init.attention_diagonal` the logits of every head are scaled, block by block, by what the tokens need that reach it
    (`calibrate_`).

    Args:
        model: a model with blocks that an adapter knows, on a real device, of any floating dtype.
        init: the scheme; `SkiplessInit()` by default, the paper's values for ViT-Base. `SkiplessInit.for_model(model)`
            suits the model's width and depth.
        images: a batch of normalised images, on which sizes and attention are measured. Without it the patch embeddings
            are sized by formula, and attention is measured on normal tokens; whatever `init` leaves as the paper has it
            needs neither.
        inputs: the same for a language model: token ids.
        generator: source of randomness, torch's global CPU generator by default. A CPU generator gives the same weights
            on every device, up to rounding and the parameter's dtype.
        device: where matrices are factorised, from a width of 256 on. By default on the model's own device if that is
            a CUDA device, else on the CPU.
        progress: show progress on standard error. By default it is shown on a terminal, from the third second on.

    Returns:
        The model.

    Raises:
        InputError: if no adapter knows the model, a parameter has no rule or is on the meta device, the model has not
            what `init` would set, or it does not take the images. The model is then unchanged.

    Example:
        >>> import timm
        >>> from skipless import remove_skips_
        >>> model = remove_skips_(timm.create_model("vit_tiny_patch16_224", depth=2))
        >>> model = initialize_(model, SkiplessInit(alpha=1.8, beta=1.0, c=3.0))
        >>> singular_values = torch.linalg.svdvals(model.blocks[0].attn.proj.weight)
        >>> round(singular_values.min().item(), 4), round(singular_values.max().item(), 4)
        (3.0, 3.0)
    """
    init = SkiplessInit() if init is None else init
    views = block_views(model)
    _check(model, views, init, images, inputs)
    given = None if device is None else torch.device(device)
    drawn = (_draw(view, init, len(views), generator, _factorised_on(view, given)) for view in views)
    factorise = _in_threads if _worth_threads(views, given) else _in_turn
    after = 0.0 if progress else _QUIET_S
    with progress_bar("initialising blocks", show=progress is not False, after=after, lines=bool(progress)) as report:
        for done, (view, written) in enumerate(zip(views, factorise(drawn), strict=True), start=1):
            for linears, matrices in written:
                for linear, w in zip(linears, matrices, strict=True):
                    linear.write_(w)
            _reset_rest_(view)
            if init.mlp == "mirrored" and view.gate is not None:
                view.mlp_in[view.gate].fill_bias_(GATE_BIAS)
            report(done, len(views))
    if init.positions != "kept":
        set_positions_(model, init.positions, init.position_scale, images=images, generator=generator)
    if init.attention_diagonal is not None:
        targets = [init.head_diagonals(len(views), view.heads)[place] for place, view in enumerate(views)]
        calibrate_(model, targets, images=images, inputs=inputs)
    _note_initialized_(model, views)
    return model


def _reset_rest_(view: BlockView) -> None:
    """Set norms to the identity, and what is added to logits by relative position to 0."""
    for norm in view.norms:
        for name, parameter in norm.named_parameters():
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    for name in view.position_biases:
        view.block.get_parameter(name).zero_()
    if view.core is not None:
        view.core.reset_parameters()


def _note_initialized_(model: nn.Module, views: list[BlockView]) -> None:
    """Tell libraries whose own initialisation may be called again that the blocks have theirs."""
    for adapter in dict.fromkeys(adapter for adapter, _, _ in find_blocks(model)):
        getattr(adapter, "note_initialized_", lambda _: None)(views)


def _draw(
    view: BlockView, init: SkiplessInit, depth: int, generator: Generator | None, device: torch.device | None
) -> list[Drawn]:
    """Draw a block's random matrices: queries and keys, values and outputs, then the MLP's maps."""
    sizes = (view.dim, view.heads, view.head_dim, view.key_heads)
    drawn: list[Drawn] = [
        ((view.query, view.key), init.draw_query_key(*sizes, generator, device)),
        ((view.value, view.output), _draw_value_output(view, init, generator, device)),
    ]
    if init.mlp == "mirrored":
        drawn.append(_draw_near_linear(view, init, depth, generator, device))
    elif init.mlp == "orthogonal":
        equal = init.gates == "equal" and view.gate is not None
        alike = (view.mlp_in,) if equal else tuple((linear,) for linear in view.mlp_in)
        for linears in (*alike, (view.mlp_out,)):
            fan_in, fan_out = linears[0].w.shape
            work = init.draw_mlp_map(fan_in, fan_out, generator, device)
            drawn.append((linears, lambda work=work, linears=linears: (work(),) * len(linears)))
    return drawn


def _draw_value_output(
    view: BlockView, init: SkiplessInit, generator: Generator | None, device: torch.device | None
) -> Callable[[], tuple[Tensor, ...]]:
    """Values and outputs. Heads that share values have one output map between them, each a part of it."""
    if init.context_heads:
        return draw_parted_value_output(view.dim, init.c, _kept(view, init), generator=generator, device=device)
    shared = view.heads // view.key_heads
    work = init.draw_value_output(view.dim, view.key_heads * view.head_dim, generator, device)
    if shared == 1:
        return work

    def repeated() -> tuple[Tensor, ...]:
        w_v, w_o = work()
        by_head = (w_o / shared).unflatten(0, (view.key_heads, view.head_dim)).repeat_interleave(shared, dim=0)
        return w_v, by_head.flatten(0, 1)

    return repeated


def _draw_near_linear(
    view: BlockView, init: SkiplessInit, depth: int, generator: Generator | None, device: torch.device | None
) -> Drawn:
    """An MLP near a rotation: in pairs of opposite sign, or of gates that start open where these have biases."""
    sizes = (view.dim, view.mlp_out.w.shape[0], view.activation)
    given: dict[str, Any] = {"generator": generator, "device": device}
    if init.context_heads:
        given["rotation"] = draw_turned_rotation(view.dim, _kept(view, init), solve_turn(depth), **given)
    if view.gate is None:
        return (*view.mlp_in, view.mlp_out), draw_mirrored_mlp(*sizes, init.linearity(view.activation, depth), **given)
    maps = (view.mlp_in[view.gate], view.mlp_in[1 - view.gate], view.mlp_out)
    if view.mlp_in[view.gate].bias is None:
        return maps, draw_mirrored_gated_mlp(*sizes, init.mlp_linearity, **given)
    return maps, draw_gated_mlp(*sizes, init.linearity(view.activation, depth), **given)


def _kept(view: BlockView, init: SkiplessInit) -> int:
    """Directions that belong to the heads that keep the token."""
    return (view.heads - context_count(view.heads, init.context_heads)) * view.head_dim


def _factorised_on(view: BlockView, device: torch.device | None) -> torch.device | None:
    """Where a block's matrices are factorised; None leaves them where they are drawn."""
    if view.dim < LARGE:
        return None
    own = view.query.weight.device
    return device if device is not None or own.type != "cuda" else own


def _worth_threads(views: list[BlockView], device: torch.device | None) -> bool:
    """Whether there are large matrices, factorised on the CPU, and threads for them."""
    places = {_factorised_on(view, device) or torch.device("cpu") for view in views}
    return (
        max(view.dim for view in views) >= LARGE
        and all(place.type == "cpu" for place in places)
        and torch.get_num_threads() > 1
    )


def _in_turn(blocks: Iterable[list[Drawn]]) -> Iterator[list[Factorised]]:
    """Factorise one block after another."""
    for drawn in blocks:
        yield [(linears, work()) for linears, work in drawn]


def _in_threads(blocks: Iterable[list[Drawn]]) -> Iterator[list[Factorised]]:
    """Factorise in as many threads as torch has, each matrix in one, while later blocks are drawn."""
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "initialize", initializer=partial(torch.set_num_threads, 1))
    queue: deque[list[tuple[tuple[LinearMap, ...], Future[tuple[Tensor, ...]]]]] = deque()
    try:
        for drawn in blocks:
            queue.append([(linears, pool.submit(work)) for linears, work in drawn])
            if len(queue) == _AHEAD:
                yield [(linears, future.result()) for linears, future in queue.popleft()]
        while queue:
            yield [(linears, future.result()) for linears, future in queue.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # threads that are made later take the number that was set last


def _check(
    model: nn.Module, views: list[BlockView], init: SkiplessInit, images: Tensor | None, inputs: Tensor | None
) -> None:
    """Refuse what cannot be done, before anything is written."""
    for view in views:
        _check_covered(view)
        _check_linear(view, init)
        _check_grouped(view, init)
        _check_context_heads(view, init)
        if init.attention_diagonal is not None:
            _check_softmax(view)
            check_scalable(view)
    given = one_of(images, inputs)
    if given is not None:
        check_taken(model, given)
    if init.positions != "kept":
        patch_rms(check_positions(model, init.positions), images)


def _check_covered(view: BlockView) -> None:
    """Raise `InputError` unless every parameter of the block has a rule, memory and a floating-point dtype."""
    covered = {id(parameter) for linear in view.maps for parameter in (linear.weight, linear.bias)}
    for norm in view.norms:
        covered |= {id(parameter) for name, parameter in norm.named_parameters() if name in ("weight", "bias")}
    if view.core is not None:
        covered |= {id(parameter) for parameter in view.core.parameters()}
    for name, parameter in view.block.named_parameters():
        if id(parameter) not in covered and name not in (*view.layer_scales, *view.position_biases):
            raise InputError(
                f"no rule for the parameter {view.name}.{name} {tuple(parameter.shape)}: the scheme has rules for the "
                f"matrices and biases of attention and MLP, and for norms; supported: {supported()}"
            )
        if parameter.is_meta:
            raise InputError(
                f"{view.name}.{name} is on the meta device, where an initialisation is lost: materialise the model "
                "(model.to_empty(device=...)), initialise what lies outside the blocks, then call initialize_"
            )
        if not parameter.is_floating_point():
            raise InputError(f"{view.name}.{name} is {parameter.dtype}: initialise before quantising")


def _check_softmax(view: BlockView) -> None:
    """Refuse to solve a diagonal of softmax attention where another core stands."""
    if view.core is not None:
        raise InputError(
            f"{view.name} has {type(view.core).__name__} in place of the softmax whose diagonal attention_diagonal "
            "solves: use a scheme without it (PolynomialAttention(scale='solved') has a scale of its own)"
        )


def _check_grouped(view: BlockView, init: SkiplessInit) -> None:
    """Refuse shared values that cannot hold a scaled rotation, unless the scheme says what to do then."""
    rank = view.key_heads * view.head_dim
    if rank < view.dim and view.key_heads != view.heads and init.grouped == "refused":
        raise InputError(
            f"{view.name} has {view.key_heads} key heads of {view.head_dim} for {view.heads} heads: W_V W_O has rank "
            f"{rank} at most, and cannot be a scaled rotation of d = {view.dim}; grouped='repeated' takes {rank} "
            "directions and loses the others, or build the model with a key head for each head"
        )


def _check_context_heads(view: BlockView, init: SkiplessInit) -> None:
    """Refuse two kinds of heads where values are shared, or one scale serves the logits of all heads."""
    if not init.context_heads:
        return
    context_count(view.heads, init.context_heads)
    if view.key_heads != view.heads or view.heads * view.head_dim != view.dim:
        raise InputError(
            f"{view.name} has {view.heads} heads of {view.head_dim} with {view.key_heads} keys at d = {view.dim}: "
            "context_heads needs a key head for each head, and heads x head_dim = d; use context_heads=0"
        )
    if not isinstance(view.query_norm, nn.Identity):
        raise InputError(f"{view.name} has qk-norm, one scale for all heads: use context_heads=0")


def _check_linear(view: BlockView, init: SkiplessInit) -> None:
    """Refuse an MLP that cannot start near a rotation, before anything is written."""
    if init.mlp != "mirrored":
        return
    hidden = view.mlp_out.w.shape[0]
    if view.gate is None:
        check_mirrored(view.dim, hidden)
        odd_slope(view.activation)
        return
    if view.mlp_in[view.gate].bias is not None:
        check_gated(view.dim, hidden)
        return
    check_mirrored_gated(view.dim, hidden, view.activation)
    if init.mlp_linearity is not None:
        solve_gate_scale(view.activation, init.mlp_linearity)
