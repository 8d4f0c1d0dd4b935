"""Real integers by torchao: smaller weights and integer kernels, in the linear maps that `quantise_` rounds."""

from collections.abc import Callable
from typing import Any

from torch import nn

from skipless.errors import InputError
from skipless.evaluators.quantisation.rounding.convert import is_quantised
from skipless.models.blocks import BlockView
from skipless.models.surgery import block_views
from skipless.optional import how_to_install, is_installed

_GRID = "give weights=8 or 4, and activations=8 or None"


def torchao_(model: nn.Module, weights: int = 8, activations: int | None = 8) -> nn.Module:
    """Hand the linear maps of a model's blocks to torchao, in place: weights become integers, and cannot come back.

    Scales are of each output channel and, dynamic, of each token, as `quantise_` has them by default. The grids differ
    by half a step: torchao's reach from -128 to 127, ours from -127 to 127. So single outputs differ by as much as
    rounding changes them, and accuracies agree. Embedding and head stay as they are.

    Args:
        model: a model with blocks that an adapter knows, whose linear maps are `nn.Linear`, on the device where it
            shall run.
        weights: 8 or 4. With 4, weights are kept in a byte each on the CPU: their values are of four bits, their size
            is not.
        activations: 8; or None to leave them as they are.

    Returns:
        The model. Its weights are torchao's tensors: save its state with `torch.save`.

    Raises:
        InputError: if torchao is missing, bits are none of these, the model is quantised already, or a block has a
            linear map that is no `nn.Linear`. The model is then unchanged.
    """
    if weights not in (8, 4) or activations not in (8, None):
        raise InputError(f"weights={weights!r}, activations={activations!r}: torchao has no such kernel here; {_GRID}")
    if not is_installed("torchao"):
        raise InputError(f"real integers need torchao: {how_to_install('torchao')}")
    if is_quantised(model):
        raise InputError("the model is quantised: call unquantise_ before torchao_")
    chosen: set[nn.Module] = {module for view in block_views(model) for module in _linear(view)}
    from torchao.quantization import quantize_  # pyright: ignore[reportMissingImports]

    def is_chosen(module: nn.Module, _: str) -> bool:
        return module in chosen

    quantize_(model, _kernel(weights, activations)(), filter_fn=is_chosen)
    return model


def _kernel(weights: int, activations: int | None) -> Callable[[], Any]:
    import torch
    from torchao import quantization as kinds  # pyright: ignore[reportMissingImports]
    from torchao.quantization.granularity import PerAxis  # pyright: ignore[reportMissingImports]

    if weights == 8:
        return kinds.Int8WeightOnlyConfig if activations is None else kinds.Int8DynamicActivationInt8WeightConfig
    four = {"weight_dtype": torch.int4}  # pyright: ignore[reportAttributeAccessIssue]
    if activations is None:
        return lambda: kinds.IntxWeightOnlyConfig(**four, granularity=PerAxis(0))
    return lambda: kinds.Int8DynamicActivationIntxWeightConfig(**four, weight_granularity=PerAxis(0))


def _linear(view: BlockView) -> list[nn.Linear]:
    """The modules of a block's linear maps.

    Raises:
        InputError: if one is in no plain `nn.Linear`, or is used without it.
    """
    found = [module for module in view.block.modules() if type(module) is nn.Linear]
    held = {id(module.weight) for module in found}
    beside = any(getattr(module, "qkv_bias_separate", None) is False for module in view.block.modules())
    if beside or any(id(linear.weight) not in held for linear in view.maps):
        raise InputError(
            f"{view.name} has a linear map that is called by no nn.Linear, so torchao would not quantise it: measure "
            "it by quantise_"
        )
    return found
