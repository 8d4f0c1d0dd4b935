"""What `--measure-every` looks at while a model trains: Tables 5 and 6 at a price that training can pay."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipless.conditioning.measurement.measure import measure_conditioning
from skipless.conditioning.measurement.network_jacobian import Rows, network_conditioning
from skipless.data import ImageData
from skipless.errors import InputError
from skipless.models import block_views

IMAGES = 2  # of the validation set, the same ones every time
SMALL = 2_000_000  # parameters up to which everything is measured in float64
ITERATIONS = 500  # of Lanczos; resolves kappa up to about 1,500, and says "at least" beyond

# Both readings of Table 5, 64 rows each: the tokens' output, and the class token's alone.
ROWS = {"spread": Rows(images=2, tokens=4, outputs=8), "class": Rows(images=4, tokens=1, outputs=16)}


def training_measure(data: ImageData) -> Callable[[nn.Module], dict[str, Any]]:
    """A measurement for `fit`: at four depths what Table 6 has, and J of Table 5 at two choices of its rows.

    Four depths are the paper's 0, 4, 7 and 11 of 12. Of K and K + I it takes the one that the model has.

    Args:
        data: its first validation images are measured at.
    """
    images = first_images(data, max(rows.images for rows in ROWS.values()))

    def measure(model: nn.Module) -> dict[str, Any]:
        first = next(model.parameters())
        here = images.to(first.device, first.dtype)
        small = sum(p.numel() for p in model.parameters()) <= SMALL
        report = measure_conditioning(
            model,
            here[:IMAGES],
            blocks=depths(len(block_views(model))),
            parts=("attn", "maps", "tokens"),
            forms="own",
            dtype=torch.float64 if small else None,
            max_iterations=ITERATIONS,
            inverse_rows=2048,
        )
        return {**report.as_json(), "networks": jacobian_by_rows(model, here, double=small)}

    return measure


def jacobian_by_rows(model: nn.Module, images: Float[Tensor, "b c h w"], *, double: bool) -> dict[str, Any]:
    """kappa(J J^T) at both choices of rows, as JSON; rows that the model does not have are left out."""
    if double and images.dtype != torch.float64:
        model, images = copy.deepcopy(model).double(), images.double()
    dim = block_views(model)[0].dim
    return {
        name: network_conditioning(
            model, images, Rows(rows.images, rows.tokens, min(rows.outputs, dim)), steps=ITERATIONS
        ).as_json()
        for name, rows in ROWS.items()
    }


def depths(count: int) -> tuple[int, ...]:
    """Four blocks from first to last, as Table 6 has them.

    Example:
        >>> depths(12), depths(2)
        ((0, 4, 7, 11), (0, 1))
    """
    return tuple(dict.fromkeys(round(i * (count - 1) / 3) for i in range(4)))


def first_images(data: ImageData, count: int) -> Float[Tensor, "b c h w"]:
    """The first validation images, never augmented.

    Raises:
        InputError: if there are fewer, or fewer than one is asked for.
    """
    if not 1 <= count <= len(data.val):
        raise InputError(f"{count} images to measure at: there are {len(data.val)} validation images; give 1 or more")
    return torch.stack([data.val[index][0] for index in range(count)])
