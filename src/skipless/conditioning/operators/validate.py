"""Checks of models and inputs, made before anything is computed."""

import torch
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.models import block_views
from skipless.models.blocks import BlockView

SUPPORTED_DTYPES = (torch.float32, torch.float64)


def as_view(block: nn.Module | BlockView) -> BlockView:
    """The `BlockView` of one block, given the block's module or already its view.

    Raises:
        InputError: if no adapter knows the module, or it holds several blocks.
    """
    if isinstance(block, BlockView):
        return block
    views = block_views(block)
    if len(views) > 1:
        raise InputError(
            f"{type(block).__name__} has {len(views)} blocks, of which one is wanted: give block_views(model)[0], or "
            f"the module at {views[0].name!r}"
        )
    return views[0]


def check_weights(module: nn.Module, name: str) -> None:
    """Check that a Jacobian can be taken at the module's weights.

    Raises:
        InputError: if a parameter or buffer is on the meta device, in another dtype than float32 or float64, or not
            finite.
    """
    tensors = [*module.named_parameters(), *module.named_buffers()]
    for path, tensor in tensors:
        full = f"{name}.{path}".lstrip(".")
        if tensor.is_meta:
            raise InputError(f"{full} is on the meta device: materialise the model and load its weights first")
        if tensor.is_floating_point() and tensor.dtype not in SUPPORTED_DTYPES:
            raise InputError(
                f"{full} is {tensor.dtype}: in half precision the small singular values are rounding noise; convert "
                "with model.float() (or a copy of it)"
            )
        if isinstance(tensor, nn.Parameter) and not tensor.is_floating_point():
            raise InputError(f"{full} is {tensor.dtype}: a quantised model has no Jacobian; measure it before")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(f"{full} is not finite: there is no Jacobian; load a checkpoint from before it diverged")


def check_input(x: Tensor, what: str) -> None:
    """Check that a Jacobian can be taken at these tokens or images.

    Raises:
        InputError: if it is empty, on the meta device, in another dtype than float32 or float64, or not finite.
    """
    if x.numel() == 0:
        raise InputError(f"{what} is empty, {tuple(x.shape)}: give at least one")
    if x.is_meta:
        raise InputError(f"{what} is on the meta device: give values")
    if x.dtype not in SUPPORTED_DTYPES:
        raise InputError(f"{what} is {x.dtype}: convert with .float()")
    if not x.isfinite().all():
        raise InputError(f"{what} has values that are not finite: there is no Jacobian there")


def check_same_dtype_and_device(x: Tensor, module: nn.Module, what: str, name: str) -> None:
    """Check that an input has the dtype and the device of the weights.

    Raises:
        InputError: if one of them differs.
    """
    for path, parameter in module.named_parameters():
        full = f"{name}.{path}".lstrip(".")
        if parameter.dtype != x.dtype:
            raise InputError(
                f"{what} is {x.dtype} and {full} {parameter.dtype}: convert one with .float() or .double()"
            )
        if parameter.device != x.device:
            raise InputError(f"{what} is on {x.device} and {full} on {parameter.device}: move one with .to(...)")
