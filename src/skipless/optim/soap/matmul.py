"""Matrix products, which take nearly all of SOAP's time.

On x86 processors torch multiplies fp32 matrices by MKL, which does not use AVX-512 on processors of other makers than
Intel. oneDNN, which torch also contains, does: there it is 2.0 to 2.3 times as fast from 384 x 384 on, and an ordinary
step of SOAP is 1.7 times as fast (`benchmarks/results/soap.md`). With AVX2 alone it gains nothing.
"""

import torch
from jaxtyping import Float
from torch import Tensor

# Multiply-adds of one product. Below this, oneDNN gains little or loses (measured on one core).
_MIN_ONEDNN_MACS = 2**20


def matmul(x: Float[Tensor, "b m k"], y: Float[Tensor, "b k n"]) -> Float[Tensor, "b m n"]:
    """Multiply two stacks of matrices in full precision, by the faster of the two libraries."""
    if x.shape[1] * y.numel() <= _MIN_ONEDNN_MACS * len(x) or not _has_onednn(x):
        return torch.bmm(x, y)  # `@` ends here too, with more overhead
    products = [_onednn_linear(one, other.mT) for one, other in zip(x, y, strict=True)]
    return torch.stack(products) if len(products) > 1 else products[0][None]


def _has_onednn(x: Tensor) -> bool:
    """Whether oneDNN can multiply such a matrix, and is a different library from the one behind `@`."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.backends.mkldnn.enabled  # pyright: ignore[reportAttributeAccessIssue] (users may turn it off)
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _onednn_linear(x: Float[Tensor, "m k"], w: Float[Tensor, "n k"]) -> Float[Tensor, "m n"]:
    """Compute `x @ w.T` by oneDNN, through the operator that `torch.compile` calls for frozen linear layers.

    No public operator gets there. This one takes a `w` that is contiguous, itself or transposed; for a slice of a
    matrix it would fall back on a loop.
    """
    w = w if w.is_contiguous() or w.mT.is_contiguous() else w.contiguous()
    return torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")
