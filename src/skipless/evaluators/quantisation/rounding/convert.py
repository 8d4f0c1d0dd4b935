"""quantise_ and unquantise_: fake quantisation put into a model and taken out again, weights untouched."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.evaluators.quantisation.rounding.layers import RULE, quantised_class
from skipless.evaluators.quantisation.rounding.protocol import ActivationsPer, Quantisation, Rule, WeightsPer
from skipless.evaluators.quantisation.statistics.activations import inputs_of
from skipless.models.adapters.torch_encoder import SkiplessEncoderLayer
from skipless.models.blocks import BlockView
from skipless.models.eval_mode import evaluating
from skipless.models.surgery import block_views

_BEFORE = "unquantised_state"
_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Bilinear, nn.MultiheadAttention)


def quantise_(
    model: nn.Module,
    weights: int | None = 8,
    activations: int | None = 8,
    *,
    weights_per: WeightsPer = "channel",
    activations_per: ActivationsPer = "token",
    symmetric_weights: bool = True,
    symmetric_activations: bool = True,
    calibration: Iterable[Any] | None = None,
    ends: bool = False,
) -> nn.Module:
    """Make a model compute with rounded weights and activations, in place; `unquantise_` takes it back.

    Every linear map of every block rounds its weight and its input to a uniform grid, and computes what a kernel of
    integers would: sums of products of integers, exactly, times the scales. The weights themselves stay as they are,
    and so do parameters, hooks and state-dict keys; modules get another class. A weight that changes, by training or by
    loading, is rounded anew. Logits, softmax, the product with values, norms and sums are not quantised. Embedding and
    head stay as they are, as in published protocols, unless `ends`; a head that shares its weight with the embedding
    is rounded by its rows, as the embedding then is.

    Args:
        model: a model with blocks that an adapter knows.
        weights, activations: bits, 2 to 8; None leaves either as it is.
        weights_per: what of a weight has a scale of its own, each output channel or the whole `"tensor"`.
        activations_per: what of an activation has one, each token or the whole `"tensor"`, of a batch or of the
            calibration.
        symmetric_weights, symmetric_activations: whether grids are symmetric about 0.
        calibration: batches as for `activation_statistics`. Ranges of activations are then the least and largest
            numbers that the model's activations have on these (static, min-max); without, each batch has its own
            (dynamic). The whole model is called on them.
        ends: whether to quantise linear maps and embeddings outside the blocks, too.

    Returns:
        The model.

    Raises:
        InputError: if no adapter knows the model, it is quantised already, one of its linear maps is of a class that is
            not known, or an argument is none of these. The model is then unchanged.

    Example:
        >>> import timm
        >>> vit = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32).eval()
        >>> images = torch.randn(1, 3, 32, 32)
        >>> before = vit(images)
        >>> bool((quantise_(vit, 4, 4)(images) == before).all()), bool((unquantise_(vit)(images) == before).all())
        (False, True)
    """
    static = calibration is not None
    grids = (weights_per, activations_per, symmetric_weights, symmetric_activations)
    how = Quantisation(weights, activations, *grids, static, ends)
    if is_quantised(model):
        raise InputError(f"the model is quantised already ({quantisation_of(model).name}): call unquantise_ first")
    views = block_views(model)
    modules = list(_to_quantise(model, views, ends))
    ranges = {} if calibration is None else _ranges(model, views, modules, calibration)
    for module in modules:
        own = ranges.get(module, {})
        _put_in_(module, Rule(how, own.get(False), own.get(True)))
    for view in views:
        _never_fuse_(view)
    return model


def unquantise_(model: nn.Module) -> nn.Module:
    """Take out of a model what `quantise_` has put in; it is then as before, to the bit.

    Raises:
        InputError: if it is not quantised.
    """
    if not is_quantised(model):
        raise InputError("the model is not quantised, so there is nothing to take out")
    _take_out_(model)
    return model


def _take_out_(model: nn.Module) -> None:
    for module in model.modules():
        before = module.__dict__.pop(_BEFORE, None)
        if before is not None:
            kind, attributes, added = before
            module.__class__ = kind
            for name in added:
                module.__dict__.pop(name, None)
            module.__dict__.update(attributes)


def is_quantised(model: nn.Module) -> bool:
    """Whether `quantise_` has been called of the model, or of a part of it."""
    return any(RULE in module.__dict__ for module in model.modules())


def quantisation_of(model: nn.Module) -> Quantisation:
    """How a model is quantised.

    Raises:
        InputError: if it is not.
    """
    for module in model.modules():
        if RULE in module.__dict__:
            return module.__dict__[RULE].how
    raise InputError("the model is not quantised: call quantise_ first")


def _change_(module: nn.Module, kind: type[nn.Module], **attributes: Any) -> None:
    """Give a module another class and attributes, and note what to go back to."""
    before = {name: module.__dict__[name] for name in attributes if name in module.__dict__}
    added = tuple(name for name in attributes if name not in before)
    module.__dict__[_BEFORE] = (type(module), before, added)
    module.__class__ = kind
    module.__dict__.update(attributes)


def _put_in_(module: nn.Module, rule: Rule) -> None:
    kind = quantised_class(module)
    assert kind is not None
    _change_(module, kind, **{RULE: rule})


def _never_fuse_(view: BlockView) -> None:
    """Keep libraries from using a weight without its module."""
    if type(view.block) is nn.TransformerEncoderLayer:  # in evaluation it calls one function for all of it
        _change_(view.block, SkiplessEncoderLayer, attn_skip=True, mlp_skip=True)
    for module in view.block.modules():  # timm adds the biases of BEiT and EVA inside a function, else
        if getattr(module, "qkv_bias_separate", None) is False:
            _change_(module, type(module), qkv_bias_separate=True)


def _to_quantise(model: nn.Module, views: list[BlockView], ends: bool) -> Iterator[nn.Module]:
    """The modules that hold linear maps: all in the blocks, and all others if asked for.

    Raises:
        InputError: if one is of a class that is not known, or a block has a map that is in no module.
    """
    seen: set[nn.Module] = set()
    held: set[int] = set()
    for view in views:
        for name, module in _linear(view.block, view.name):
            if module not in seen:
                seen.add(module)
                held |= {id(parameter) for parameter in module.parameters()}
                yield _known(name, module)
        for linear in view.maps:
            if id(linear.weight) not in held:
                raise InputError(
                    f"{view.name} has a linear map of {linear.w.shape[0]} to {linear.w.shape[1]} channels that is in "
                    "no module which can be quantised; give its weight to an nn.Linear"
                )
    if ends:
        for name, module in _linear(model, "", nn.Embedding):
            if module not in seen:
                seen.add(module)
                yield _known(name, module)


def _linear(root: nn.Module, path: str, *more: type[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """Modules with a weight that inputs are multiplied by, outermost first; attention counts as one."""
    inside: set[nn.Module] = set()
    for name, module in root.named_modules():
        conv1d = any(base.__module__ == "transformers.pytorch_utils" for base in type(module).__mro__)
        if module not in inside and (isinstance(module, (*_LINEAR, *more)) or conv1d):
            inside.update(module.modules())
            yield f"{path}.{name}".strip("."), module


def _known(name: str, module: nn.Module) -> nn.Module:
    if quantised_class(module) is None:
        raise InputError(
            f"{name} is a `{type(module).__name__}`, which is not quantised by anything here; known: nn.Linear, "
            "nn.Conv2d, nn.Embedding, nn.MultiheadAttention and GPT-2's Conv1D, exactly, without wrappers"
        )
    if getattr(module, "max_norm", None) is not None:
        raise InputError(f"{name} has max_norm, which changes its weight as it is used: build it without")
    if isinstance(module, nn.MultiheadAttention) and (module.bias_k is not None or module.in_proj_weight is None):
        raise InputError(f"{name} has bias_k, kdim or vdim, which no quantised attention has: build it without")
    return module


@torch.no_grad()
def _ranges(
    model: nn.Module, views: list[BlockView], modules: list[nn.Module], calibration: Iterable[Any]
) -> dict[nn.Module, dict[bool, tuple[float, float]]]:
    """Least and largest number that enters every module, over all batches, of the model as it is.

    Attention of one module has two linear maps: what enters the second is at True.
    """
    found: dict[nn.Module, dict[bool, tuple[float, float]]] = {}
    count = 0
    with evaluating(model), ExitStack() as stack:
        stack.callback(_take_out_, model)
        for module in modules:
            own = found.setdefault(module, {})
            _put_in_(module, Rule(Quantisation(), watch=partial(_widen_, own)))
        for view in views:
            _never_fuse_(view)
        weight = views[0].query.weight
        for batch in calibration:
            given = inputs_of(batch)
            model(given.to(weight) if given.is_floating_point() else given.to(weight.device))
            count += 1
    if not count:
        raise InputError("calibration has no batches: give images (b, c, h, w), or token ids (b, n)")
    return found


def _widen_(ranges: dict[bool, tuple[float, float]], x: Tensor, inner: bool) -> None:
    if not x.isfinite().all():
        raise InputError("calibration has met activations that are not finite: look for NaN or infinity in the model")
    low, high = (one.item() for one in x.aminmax())
    before = ranges.get(inner, (low, high))
    ranges[inner] = (min(before[0], low), max(before[1], high))
