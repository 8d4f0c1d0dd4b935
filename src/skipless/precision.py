"""Full precision for a while, whatever the user's settings for training are."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


@contextmanager
def full_precision(devices: Iterable[str] = ()) -> Iterator[None]:
    """Turn TF32, bf16 matrix units and autocast off, in matrix products and convolutions.

    TF32 keeps 10 bits of a factor: a relative error of 1e-3, which breaks SOAP's estimates of eigenvalues and hides
    singular values below a thousandth of the largest. It is also a decorator.

    Args:
        devices: kinds of devices whose autocast is turned off.

    Example:
        >>> before = torch.get_float32_matmul_precision()
        >>> with full_precision(["cpu"]):
        ...     torch.get_float32_matmul_precision()
        'highest'
        >>> torch.get_float32_matmul_precision() == before
        True
    """
    backends: Any = (
        torch.backends.cuda.matmul,
        torch.backends.mkldnn.matmul,  # pyright: ignore[reportAttributeAccessIssue]
        torch.backends.cudnn.conv,  # pyright: ignore[reportAttributeAccessIssue]
        torch.backends.mkldnn.conv,  # pyright: ignore[reportAttributeAccessIssue]
    )
    before = [backend.fp32_precision for backend in backends]
    try:
        overall = torch.get_float32_matmul_precision()
    except RuntimeError:  # raised where the backends were set one by one; "highest" is then torch's overall setting
        overall = "highest"
    with ExitStack() as stack:
        for backend, precision in zip(backends, before, strict=True):
            stack.callback(setattr, backend, "fp32_precision", precision)
        stack.callback(torch.set_float32_matmul_precision, overall)
        torch.set_float32_matmul_precision("highest")
        for backend in backends[2:]:
            backend.fp32_precision = "ieee"
        for device in devices:
            stack.enter_context(torch.autocast(device, enabled=False))
        yield
