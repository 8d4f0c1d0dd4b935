"""Matrix products of SOAP: all of its time, nearly.

On x86 processors torch multiplies fp32 matrices by MKL, which leaves the registers of AVX-512 unused where the maker is
not Intel. oneDNN, with which torch is built, too, uses them: there it is 2.0 to 2.3 times as fast from 384 x 384 on,
and an ordinary step of SOAP 1.7 times (`benchmarks/results/soap.md`). Held to AVX2 it gains nothing.
"""

import torch
from jaxtyping import Float
from torch import Tensor

# Multiply-adds of one product; below, oneDNN gains little or loses (measured on one core).
_WORTH = 2**20


def matmul(x: Float[Tensor, "b m k"], y: Float[Tensor, "b k n"]) -> Float[Tensor, "b m n"]:
    """Multiply two stacks of matrices in full precision, by whatever does it fastest."""
    if x.shape[1] * y.numel() <= _WORTH * len(x) or not _onednn(x):
        return torch.bmm(x, y)  # what `@` comes to, without its way there
    products = [_linear(one, other.mT) for one, other in zip(x, y, strict=True)]
    return torch.stack(products) if len(products) > 1 else products[0][None]


def _onednn(x: Tensor) -> bool:
    """Whether oneDNN is there for such a matrix, and is another library than the one behind `@`."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.backends.mkldnn.enabled  # pyright: ignore[reportAttributeAccessIssue] (as a user may have set it)
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _linear(x: Float[Tensor, "m k"], w: Float[Tensor, "n k"]) -> Float[Tensor, "m n"]:
    """`x @ w.T` by oneDNN. torch's own compiler calls this operator for frozen linear layers; no public one gets there.

    It takes `w` or its transpose in one piece; for a part of a matrix it would fall back on a loop.
    """
    w = w if w.is_contiguous() or w.mT.is_contiguous() else w.contiguous()
    return torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")
