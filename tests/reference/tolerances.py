"""How far two results of one computation may be apart, by dtype: the only place where tests on a device take it from.

A CPU in full precision is held to the same numbers as an accelerator. Where a test asks for equality to the bit, it
says so itself.
"""

from typing import Any

import torch
from torch import Tensor

# About a thousand roundings of a number near 1, which the sums of these small models add up to.
TOLERANCE = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-10},
    torch.float32: {"rtol": 1e-4, "atol": 1e-5},
    torch.float16: {"rtol": 2e-2, "atol": 2e-3},
    torch.bfloat16: {"rtol": 8e-2, "atol": 1e-2},
}


def assert_near(found: Any, expected: Tensor, dtype: torch.dtype | None = None) -> None:
    """Compare on the CPU, at the tolerance of `dtype`, or of what was found."""
    torch.testing.assert_close(found.cpu(), expected.cpu(), check_dtype=False, **TOLERANCE[dtype or found.dtype])
