"""Excess kurtosis by four definitions: the plain one, and three that public code of the field prints.

They do not agree on anything but independent Gaussian numbers of one variance, so a number is never without its name.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from skipless.errors import InputError
from skipless.evaluators.quantisation.rounding.grid import check_numbers
from skipless.evaluators.quantisation.statistics.moments import Moments, flat

Kurtosis = Literal["pooled", "sequence", "token", "neuron"]
_SOFTENED = 1e-6  # what "sequence" adds to s^4, as its source does


def excess_kurtosis(x: Float[Tensor, "*b n d"], definition: Kurtosis = "pooled") -> float:
    """How heavy the tails of activations are; 0 for independent Gaussian numbers of one variance.

    Args:
        x: activations of tokens, `(b, n, d)`: sequences (or images), tokens, features; `(n, d)` is one sequence.
        definition: how it is taken. For independent Laplace numbers the four give 3, 3, 3 and 0.

            - `"pooled"`: all numbers together, E(x - m)^4 / s^4 - 3.
            - `"sequence"`: the same of each sequence alone, with the unbiased s and 1e-6 added to s^4, averaged over
              sequences. Qualcomm's code (Bondarenko et al., 2306.12929) prints it with the 3, so 3 for a Gaussian.
            - `"token"`: of each token over its features, E x^4 / s^4 - 3, where x is not centred, s is the unbiased
              standard deviation, and what is below 0 counts as 0; averaged over tokens (OSP, 2506.19697). Whether
              theirs is the unbiased one is not known. Tokens of constant features have none and are left out.
            - `"neuron"`: the variance of the features' mean squares over tokens, each divided by the mean of all (He et
              al., 2405.19279, Kurt - 1). Tails do not count at all, only whether some features are larger than others.

    Returns:
        The excess kurtosis; NaN where all numbers are equal.

    Raises:
        InputError: if there are no numbers, some are not finite, or the definition is unknown.

    Example:
        >>> tokens = torch.randn(512, 64, generator=torch.Generator().manual_seed(0))
        >>> tokens[:, 0] *= 30
        >>> [round(excess_kurtosis(tokens, name)) for name in ("pooled", "sequence", "token", "neuron")]
        [157, 157, 38, 55]
    """
    if definition not in get_args(Kurtosis):
        raise InputError(f"definition={definition!r}: give one of {', '.join(get_args(Kurtosis))}")
    check_numbers(x)
    if definition == "pooled":
        return Moments.of(flat(x)).pooled().kurtosis.item()
    if definition == "neuron":
        return neuron_kurtosis(flat(x).square().mean(0))
    total, count = (of_tokens if definition == "token" else of_sequences)(as_sequences(x))
    return total / count if count else float("nan")


def as_sequences(x: Tensor) -> Float[Tensor, "b n d"]:
    """Activations as sequences of tokens; without such dimensions they are one."""
    return x.detach().reshape(-1, *((1, 1, *x.shape)[-2:] if x.ndim < 2 else x.shape[-2:]))


def of_sequences(x: Float[Tensor, "b n d"]) -> tuple[float, int]:
    """Summed excess kurtosis of sequences by the definition `"sequence"`, and how many there are."""
    rows = x.double().flatten(1)
    squares = (rows - rows.mean(1, keepdim=True)).square_()
    variance = squares.sum(1) / max(rows.shape[1] - 1, 1)
    return (_mean_square(squares) / (variance.square() + _SOFTENED) - 3).sum().item(), len(rows)


def of_tokens(x: Float[Tensor, "b n d"]) -> tuple[float, int]:
    """Summed excess kurtosis of tokens by the definition `"token"`, and how many have one."""
    rows = x.double().flatten(0, 1)
    centred = rows - rows.mean(1, keepdim=True)
    variance = _mean_square(centred) * (rows.shape[1] / max(rows.shape[1] - 1, 1))
    found = _mean_square(rows.square()) / variance.square() - 3
    there = rows.amin(1) != rows.amax(1)  # the mean of equal numbers may differ from them by rounding
    return found[there].clamp(min=0).sum().item(), int(there.sum())


def _mean_square(rows: Float64[Tensor, "n d"]) -> Float64[Tensor, " n"]:
    """Of each row, in one pass."""
    return torch.linalg.vector_norm(rows, dim=1).square() / rows.shape[1]


def neuron_kurtosis(squares: Float64[Tensor, " d"]) -> float:
    """Excess kurtosis by the definition `"neuron"`, from the mean squares of features."""
    return (squares / squares.mean()).var(correction=0).item()
