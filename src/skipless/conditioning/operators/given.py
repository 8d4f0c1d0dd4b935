"""What a model is measured at: images, or token ids of a language model."""

import torch
from torch import Tensor, nn

from skipless.conditioning.operators.validate import check_input, check_same_dtype_and_device
from skipless.errors import InputError
from skipless.models.starting.first_tokens import Given, one_of
from skipless.models.text_view import check_ids, find_text, find_texts


def chosen(images: Given | None, inputs: Given | None) -> Given:
    """The one that is given of images and token ids.

    Raises:
        InputError: if both are, or none.
    """
    given = one_of(images, inputs)
    if given is None:
        raise InputError("give images, or inputs, token ids (b, n), of a language model")
    return given


def is_text(given: Given) -> bool:
    """Whether they are token ids, not images.

    Example:
        >>> is_text(torch.zeros(1, 5, dtype=torch.long)), is_text(torch.zeros(1, 3, 8, 8))
        (True, False)
    """
    return given.ndim == 2


def as_dtype(given: Given, dtype: torch.dtype) -> Given:
    """Images in another dtype; token ids stay what they are."""
    return given if is_text(given) else given.to(dtype)


def dtype_at(model: nn.Module, given: Given) -> torch.dtype:
    """The dtype in which the model computes there."""
    return next(model.parameters()).dtype if is_text(given) else given.dtype


def check_given(model: nn.Module, given: Given) -> None:
    """Check that a model can be measured there.

    Raises:
        InputError: if there is nothing, or it is on the meta device or another than the model's, if images are not
            finite, in half precision or of another dtype than the model's, or are given to a language model, or if
            token ids are not the model's.
    """
    if not is_text(given):
        if find_texts(model):
            raise InputError(f"`{type(model).__name__}` is a language model: give inputs, token ids (b, n), not images")
        check_input(given, "images")
        check_same_dtype_and_device(given, model, "images", "")
        return
    if given.is_meta:
        raise InputError("token ids are on the meta device: give values")
    check_ids(find_text(model), given)
    for path, parameter in model.named_parameters():
        if parameter.device != given.device:
            raise InputError(f"token ids are on {given.device} and {path} on {parameter.device}: move one with .to()")


def run_model(model: nn.Module, given: Given) -> None:
    """Run a model for what its hooks see. A language model keeps no cache, and its head is left out."""
    if is_text(given):
        find_text(model).transformer(given, use_cache=False)
    else:
        model(given)


def shape_of(given: Tensor) -> str:
    """What is given, in words for errors."""
    return f"{'token ids' if is_text(given) else 'images'} of shape {tuple(given.shape)}"
