"""remove_skips_, initialize_ and create_model: the paper's two changes to other libraries' models."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import timm
import torch
from torch import Generator, nn

from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.models import timm_vit
from skipless.models.blocks import BlockView, SubBlock
from skipless.models.timm_registry import register_models

# What timm's factory raises for keywords, tags and checkpoint paths that it cannot use.
_TIMM_ERRORS = (TypeError, ValueError, KeyError, AssertionError, ArithmeticError, RuntimeError, OSError)


def block_views(model: nn.Module) -> list[BlockView]:
    """Give a view of every transformer block of the model, first to last.

    Raises:
        InputError: if the model has no block that an adapter knows.

    Example:
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=2)
        >>> [(view.name, view.heads, tuple(view.w_q.shape)) for view in block_views(model)]
        [('blocks.0', 3, (192, 192)), ('blocks.1', 3, (192, 192))]
    """
    return [timm_vit.view(name, block) for name, block in timm_vit.blocks(model)]


def remove_skips_(
    model: nn.Module,
    sub_blocks: Sequence[SubBlock] = ("attn", "mlp"),
    *,
    layer_scale: timm_vit.LayerScaleChoice = "remove",
) -> nn.Module:
    """Leave out the skip connections of every block, in place: x = f(norm(x)) for x = x + f(norm(x)).

    Parameters and state-dict keys stay, so checkpoints load both ways; only the class of each block changes. The skips
    of the two sub-blocks are removed independently. A skip that is removed already stays removed.

    Args:
        model: a model with blocks that an adapter knows, or one such block's parent.
        sub_blocks: `"attn"`, `"mlp"` or both.
        layer_scale: what happens to LayerScale, which starts a residual branch near zero (1e-5). Without the skip this
            is the whole signal, and LayerNorm's eps dominates it. `"remove"` (default) removes LayerScale from the
            chosen sub-blocks, with its `gamma` keys; `"keep"` leaves it.

    Returns:
        The model.

    Raises:
        InputError: if no adapter knows the model, a name is unknown, or a sub-block has drop path. The model is then
            unchanged.

    Example:
        >>> model = remove_skips_(timm.create_model("vit_tiny_patch16_224", depth=2))
        >>> [view.skips for view in block_views(model)]
        [(), ()]
    """
    chosen = tuple(name for name in get_args(SubBlock) if name in sub_blocks)
    if isinstance(sub_blocks, str) or not chosen or not set(sub_blocks) <= set(chosen):
        raise InputError(f"sub_blocks={sub_blocks!r}: give a tuple of 'attn', 'mlp' or both")
    if layer_scale not in get_args(timm_vit.LayerScaleChoice):
        raise InputError(f"layer_scale={layer_scale!r} is not one of 'remove', 'keep'")
    blocks = timm_vit.blocks(model)
    for name, block in blocks:
        timm_vit.check_removable(name, block, chosen)
    for _, block in blocks:
        timm_vit.remove_skips_(block, chosen, layer_scale)
    return model


@torch.no_grad()
def initialize_(model: nn.Module, init: SkiplessInit | None = None, *, generator: Generator | None = None) -> nn.Module:
    """Give every block the paper's initialisation, in place (section 5; MLP: section 6.1).

    `init` draws W_Q, W_K, W_V, W_O and the MLP. Biases are set to 0 and norms to the identity. Any other parameter of a
    block is an error, except that LayerScale keeps its value. Patch embedding, class and register tokens, final norm,
    attention pooling and head keep the library's values, because the paper says nothing about them.

    Args:
        model: a model with blocks that an adapter knows, on a real device, of any floating dtype.
        init: the scheme; `SkiplessInit()` by default, the paper's values for ViT-Base.
        generator: source of randomness, torch's global CPU generator by default. A CPU generator gives the same weights
            on every device, up to the parameter's dtype.

    Returns:
        The model.

    Raises:
        InputError: if no adapter knows the model, or a parameter has no rule or is on the meta device.

    Example:
        >>> model = remove_skips_(timm.create_model("vit_tiny_patch16_224", depth=2))
        >>> model = initialize_(model, SkiplessInit(alpha=1.8, beta=1.0, c=3.0))
        >>> singular_values = torch.linalg.svdvals(model.blocks[0].attn.proj.weight)
        >>> round(singular_values.min().item(), 4), round(singular_values.max().item(), 4)
        (3.0, 3.0)
    """
    init = SkiplessInit() if init is None else init
    views = block_views(model)
    for view in views:
        _check_covered(view)
    for view in views:
        inner = view.heads * view.head_dim
        w_q, w_k = init.query_key(view.dim, view.heads, view.head_dim, view.key_heads, generator)
        w_v, w_o = init.value_output(view.dim, inner, generator)
        for linear, w in ((view.query, w_q), (view.key, w_k), (view.value, w_v), (view.output, w_o)):
            linear.write_(w)
        if init.mlp == "orthogonal":
            for linear in (*view.mlp_in, view.mlp_out):
                fan_in, fan_out = linear.w.shape
                linear.write_(init.mlp_map(fan_in, fan_out, generator))
        for norm in view.norms:
            for name, parameter in norm.named_parameters():
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    return model


def create_model(
    name: str,
    *,
    skip: bool = False,
    init: SkiplessInit | None = None,
    sub_blocks: Sequence[SubBlock] = ("attn", "mlp"),
    seed: int | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Create a timm model with skips, without skips, or without skips and initialised: the three rows of Table 1.

    Args:
        name: timm's name of the residual model, `vit_small_patch16_224`.
        skip: keep the skips; `create_model(name, skip=True)` is timm's own model.
        init: the scheme; None leaves timm's own initialisation.
        sub_blocks: the sub-blocks whose skips are left out if `skip` is False.
        seed: if given, weights drawn on the CPU depend on this number only, and torch's global generator is restored.
        **kwargs: for `timm.create_model`.

    Raises:
        InputError: for an unknown model, keywords that timm refuses, and whatever `remove_skips_` refuses.

    Example:
        >>> model = create_model("vit_tiny_patch16_224", init=SkiplessInit(alpha=1.8, beta=1.0), depth=2, seed=0)
        >>> sum(p.numel() for p in model.parameters())
        1268776
    """
    _check_known(name)
    if source := timm.models.parse_model_name(name)[0]:
        raise InputError(
            f"{name!r} is a model of {source} that may have its skips or not; name one of timm's, whose weights can "
            "come from a file: vit_small_patch16_224"
        )
    if name.startswith("skipless_"):
        bare = name.removeprefix("skipless_")
        raise InputError(f"{name!r} is skipless and initialised already; name {bare!r} here, with skip= and init=")
    if seed is not None and not 0 <= seed < 2**63:
        raise InputError(f"seed {seed} is out of range; give 0 to 2^63 - 1")
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        try:
            model = timm.create_model(name, **kwargs)
        except _TIMM_ERRORS as error:
            raise InputError(f"timm cannot build {_described(name, kwargs, error)}") from error
        if not skip:
            remove_skips_(model, sub_blocks)
        return model if init is None else initialize_(model, init)


def load_timm(name: str, *, pretrained: bool = False, seed: int = 0, **kwargs: Any) -> nn.Module:
    """Create a timm model by its name, as `timm.create_model` does; the name may be one of our skipless variants.

    Args:
        name: timm's name of the model.
        pretrained: use timm's weights, which it downloads.
        seed: seed of the weights that are drawn.
        **kwargs: for `timm.create_model`.

    Raises:
        InputError: if timm does not know the name or refuses the keywords, or the weights cannot be loaded.
    """
    _check_known(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            return timm.create_model(name, pretrained=pretrained, **kwargs)
        except InputError:
            raise
        except _TIMM_ERRORS as error:
            what = "load the pretrained weights of" if pretrained else "build"
            raise InputError(f"timm cannot {what} {_described(name, kwargs, error)}") from error


def _check_known(name: str) -> None:
    """Raise `InputError` unless timm has the model, or the name says where timm is to get it (`hf-hub:`)."""
    try:
        source, _ = timm.models.parse_model_name(name)
    except (ValueError, AssertionError) as error:
        raise InputError(str(error)) from error
    if not source and not timm.is_model(name):
        near = _near_models(name)
        hint = f"; did you mean {', '.join(near)}?" if near else "; timm.list_models() lists them"
        raise InputError(f"timm has no model {name!r}{hint}")


def _near_models(name: str) -> list[str]:
    """Up to three names that may have been meant: plain ViTs, which are supported, before timm's other models.

    A name that is begun, `vit_base`, means those that go on, the usual patch and size first. Where a model that is not
    supported is far nearer, it was meant: `resnet5`.
    """
    plain = [twin.removeprefix("skipless_") for twin in REGISTERED]
    supported = [one for one in (*plain, *REGISTERED) if timm.is_model(one)]
    begun = [one for one in supported if one.startswith(f"{name}_")]
    if begun:
        return sorted(begun, key=lambda one: (not one.endswith("_patch16_224"), len(one), one))[:3]
    nearest = difflib.get_close_matches(name, timm.list_models(), n=3)
    close = difflib.get_close_matches(name, supported, n=3, cutoff=0.85)
    return list(dict.fromkeys([*close, *nearest]))[:3]


def _described(name: str, kwargs: Mapping[str, Any], error: Exception) -> str:
    """A model that timm cannot build, and why, in one line; and which are supported, if only others take `img_size`."""
    given = f" with {dict(kwargs)}" if kwargs else ""
    hint = f"; supported: {timm_vit.SUPPORTED}" if "'img_size'" in str(error) else ""
    return f"{name!r}{given}: {' '.join(str(error).split())}{hint}"


def _check_covered(view: BlockView) -> None:
    """Raise `InputError` unless every parameter of the block has a rule, memory and a floating-point dtype."""
    covered = {id(parameter) for linear in view.maps for parameter in (linear.weight, linear.bias)}
    for norm in view.norms:
        covered |= {id(parameter) for name, parameter in norm.named_parameters() if name in ("weight", "bias")}
    for name, parameter in view.block.named_parameters():
        if id(parameter) not in covered and name not in view.layer_scales:
            raise InputError(
                f"no rule for the parameter {view.name}.{name} {tuple(parameter.shape)}: the scheme has rules for the "
                f"matrices and biases of attention and MLP, and for norms; supported: {timm_vit.SUPPORTED}"
            )
        if parameter.is_meta:
            raise InputError(
                f"{view.name}.{name} is on the meta device, where an initialisation is lost: materialise the model "
                "(model.to_empty(device=...)), initialise what lies outside the blocks, then call initialize_"
            )
        if not parameter.is_floating_point():
            raise InputError(f"{view.name}.{name} is {parameter.dtype}: initialise before quantising")


def to_variant(
    model: nn.Module,
    name: str,
    *,
    loaded: bool,
    init: SkiplessInit | Mapping[str, Any] | None = None,
    sub_blocks: Sequence[SubBlock] = ("attn", "mlp"),
    layer_scale: timm_vit.LayerScaleChoice = "remove",
    generator: Generator | None = None,
) -> nn.Module:
    """Turn timm's model into its registered skipless variant; weights that were loaded stay as they are."""
    remove_skips_(model, sub_blocks, layer_scale=layer_scale)
    if loaded:
        return model
    if init is None:  # the paper's values for ViT-Small or ViT-Base, whichever width is nearer
        init = SkiplessInit.preset("dino_vit_small" if "_tiny_" in name or "_small_" in name else "vit_base")
    elif isinstance(init, Mapping):
        init = SkiplessInit(**init)
    return initialize_(model, init, generator=generator)


REGISTERED = register_models(timm)
"""Names of the skipless models in timm's registry, `skipless_vit_small_patch16_224` among them."""
