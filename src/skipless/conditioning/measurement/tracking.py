"""The measurement of `--measure-every`: Tables 5 and 6 during training, at a low cost."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipless.conditioning.measurement.measure import measure_conditioning
from skipless.conditioning.measurement.network_jacobian import Rows, network_conditioning
from skipless.conditioning.operators.given import as_dtype, is_text
from skipless.data import ImageData
from skipless.errors import InputError
from skipless.models import block_views
from skipless.models.starting.first_tokens import Given

MEASURED_IMAGES = 2  # the first of the validation set, so that each measurement takes the same
FLOAT64_PARAMETERS = 2_000_000  # models up to this size are measured in float64
LANCZOS_ITERATIONS = 500  # resolves kappa up to about 1,500; beyond that only a lower bound is known

# Both readings of Table 5, 64 rows each: the output of four tokens, and that of the class token alone.
JACOBIAN_ROWS = {"spread": Rows(images=2, tokens=4, outputs=8), "class": Rows(images=4, tokens=1, outputs=16)}
TEXT_ROWS = {"spread": JACOBIAN_ROWS["spread"]}  # a language model has no token that stands for all


def training_measure(data: ImageData) -> Callable[[nn.Module], dict[str, Any]]:
    """Make the measurement that `fit` calls: Table 6 at four depths, and Table 5 at two choices of rows.

    The four depths are the paper's blocks 0, 4, 7 and 11 of 12. Of K and K + I, only the one that the model has is
    measured.

    Args:
        data: its first validation images are the model's input.
    """
    return measure_at(first_images(data, max(rows.images for rows in JACOBIAN_ROWS.values())))


def measure_at(given: Given) -> Callable[[nn.Module], dict[str, Any]]:
    """The same measurement at four images or more, or at rows of token ids of a language model.

    Args:
        given: normalised images, or token ids.
    """
    text = is_text(given)

    def measure(model: nn.Module) -> dict[str, Any]:
        first = next(model.parameters())
        here = given.to(first.device) if text else given.to(first.device, first.dtype)
        small = sum(p.numel() for p in model.parameters()) <= FLOAT64_PARAMETERS
        report = measure_conditioning(
            model,
            here[:MEASURED_IMAGES],
            blocks=evenly_spaced_blocks(len(block_views(model))),
            parts=("attn", "maps", "tokens"),
            forms="own",
            dtype=torch.float64 if small else None,
            max_iterations=LANCZOS_ITERATIONS,
            inverse_rows=2048,
        )
        rows = TEXT_ROWS if text else JACOBIAN_ROWS
        return {**report.as_json(), "networks": network_conditioning_by_rows(model, here, double=small, choices=rows)}

    return measure


def network_conditioning_by_rows(
    model: nn.Module, given: Given, *, double: bool, choices: Mapping[str, Rows] = JACOBIAN_ROWS
) -> dict[str, Any]:
    """kappa(J J^T) at each choice of rows, as JSON. A choice of more features than the model has takes all of them."""
    if double and next(model.parameters()).dtype != torch.float64:
        model, given = copy.deepcopy(model).double(), as_dtype(given, torch.float64)
    dim = block_views(model)[0].dim
    return {
        name: network_conditioning(
            model, given, Rows(rows.images, rows.tokens, min(rows.outputs, dim)), steps=LANCZOS_ITERATIONS
        ).as_json()
        for name, rows in choices.items()
    }


def evenly_spaced_blocks(count: int) -> tuple[int, ...]:
    """Positions of four blocks from first to last, as in Table 6.

    Example:
        >>> evenly_spaced_blocks(12), evenly_spaced_blocks(2)
        ((0, 4, 7, 11), (0, 1))
    """
    return tuple(dict.fromkeys(round(i * (count - 1) / 3) for i in range(4)))


def first_images(data: ImageData, count: int) -> Float[Tensor, "b c h w"]:
    """The first validation images, without augmentation.

    Raises:
        InputError: if there are fewer, or fewer than one is asked for.
    """
    if not 1 <= count <= len(data.val):
        raise InputError(f"{count} images to measure at: there are {len(data.val)} validation images; give 1 or more")
    return torch.stack([data.val[index][0] for index in range(count)])
