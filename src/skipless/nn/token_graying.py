"""Token Graying (Always Skip Attention, arXiv 2505.01996): flatten the spectrum of the tokens that enter a model."""

import math
from functools import lru_cache
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from skipless.errors import InputError

GrayingMethod = Literal["dct", "svd"]
Peak = Literal["kept", "one"]


class TokenGraying(nn.Module):
    """Raise the tokens' spectrum, relative to its largest value, to a power below 1, which lowers kappa(X).

    - `"svd"`: X = U S V^T becomes U S~ V^T with S~ = (S / max S)^eps. kappa(X) becomes kappa(X)^eps exactly.
    - `"dct"`: the same with the coefficients of the two-dimensional DCT-II, X^ = D_n X D_d^T: their magnitudes are
      raised to the power and keep their signs, then the DCT is inverted. This takes products with two fixed matrices
      instead of an SVD, at a tenth of its cost or less. Its effect on kappa(X) is not exact.

    The layer has no parameters and no buffers. It treats each image by itself, so its output does not depend on the
    rest of the batch. It computes in float32 or float64, also under autocast. It is differentiable even where singular
    values coincide or vanish.

    Args:
        eps: the power, above 0 and at most 1; 1 changes nothing. The paper's ablation has 0.9, 0.7, 0.6 and 0.5.
        method: see above; `"dct"` is the cheap one.
        peak: the formula leaves the largest singular value (or coefficient) at 1. `"kept"` (default) multiplies by
            max S again. Without that, tokens become so small, about 1 / sqrt(n d), that LayerNorm's eps of 1e-6
            swamps them; kappa is the same. `"one"` is the formula as it stands.

    Raises:
        InputError: for another method or peak, or a power outside its range.

    Example:
        >>> x = torch.diag(torch.tensor([4.0, 1.0, 0.25]))[None]
        >>> [round(s, 4) for s in torch.linalg.svdvals(TokenGraying(0.5, "svd")(x))[0].tolist()]
        [4.0, 2.0, 1.0]
    """

    def __init__(self, eps: float = 0.9, method: GrayingMethod = "dct", *, peak: Peak = "kept") -> None:
        super().__init__()
        if not (math.isfinite(eps) and 0 < eps <= 1):
            raise InputError(f"eps={eps}: give a power above 0 and at most 1 (1 changes nothing)")
        for name, value, known in (("method", method, get_args(GrayingMethod)), ("peak", peak, get_args(Peak))):
            if value not in known:
                raise InputError(f"{name}={value!r} is not one of {', '.join(map(repr, known))}")
        self.eps = eps
        self.method: GrayingMethod = method
        self.peak: Peak = peak

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Map tokens to grayed tokens, in their own dtype."""
        with torch.autocast(x.device.type, enabled=False):
            wide = x if x.dtype == torch.float64 else x.float()
            grayed = _gray_by_svd(wide, self.eps) if self.method == "svd" else _gray_by_dct(wide, self.eps)
            if self.peak == "kept":
                grayed = grayed * _peak(wide, self.method)
            return grayed.to(x.dtype)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"eps={self.eps}, method={self.method!r}, peak={self.peak!r}"


def _gray_by_dct(x: Float[Tensor, "b n d"], eps: float) -> Float[Tensor, "b n d"]:
    rows, columns = (dct_matrix(size, x.dtype, x.device) for size in x.shape[1:])
    coefficients = rows @ x @ columns.mT
    magnitude = coefficients.abs()
    relative = magnitude / magnitude.amax((1, 2), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    # The derivative grows like relative^(eps - 1), without bound at 0. Hence values below rounding are clamped to it.
    relative = relative.clamp_min(torch.finfo(x.dtype).eps)
    return rows.mT @ (coefficients.sign() * relative**eps) @ columns


def _gray_by_svd(x: Float[Tensor, "b n d"], eps: float) -> Float[Tensor, "b n d"]:
    relative = x / _peak(x, "svd").clamp_min(torch.finfo(x.dtype).tiny)
    return _SpectralPower.apply(relative, eps)[0]  # pyright: ignore[reportOptionalSubscript]


def _peak(x: Float[Tensor, "b n d"], method: GrayingMethod) -> Float[Tensor, "b 1 1"]:
    if method == "svd":
        return torch.linalg.matrix_norm(x, 2, keepdim=True)
    rows, columns = (dct_matrix(size, x.dtype, x.device) for size in x.shape[1:])
    return (rows @ x @ columns.mT).abs().amax((1, 2), keepdim=True)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def dct_matrix(size: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "size size"]:
    """The orthonormal DCT-II as a matrix D: `D @ x` gives the coefficients of x, and D's transpose is its inverse.

    Example:
        >>> d = dct_matrix(5, torch.float64, torch.device("cpu"))
        >>> torch.allclose(d @ d.mT, torch.eye(5, dtype=torch.float64))
        True
    """
    position = torch.arange(size, dtype=torch.double)
    angles = math.pi / size * position[:, None] * (position + 0.5)
    matrix = angles.cos() * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix.to(device, dtype)


class _SpectralPower(torch.autograd.Function):
    """U S^eps V^T with a derivative that stays finite where singular values coincide.

    Autograd's own derivative of the SVD divides by differences of singular values, which may be 0. The derivative of a
    spectral function needs only divided differences of the function, which stay finite.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        u, s, vh = torch.linalg.svd(x, full_matrices=False)
        return (u * (s * _secant(s, eps)).unsqueeze(-2)) @ vh, u, s, vh

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.eps = inputs[1]
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        u, s, vh = ctx.saved_tensors
        secant = _secant(s, ctx.eps)
        f = s * secant
        core = u.mT @ grad @ vh.mT
        symmetric, skew = (core + core.mT) / 2, (core - core.mT) / 2
        si, sj, fi, fj = s.unsqueeze(-1), s.unsqueeze(-2), f.unsqueeze(-1), f.unsqueeze(-2)
        # Below the floor f is linear. For singular values that coincide, the divided difference is the derivative.
        middle = (si + sj) / 2
        floor = _floor(s)
        derivative = torch.where(middle > floor, ctx.eps, 1.0) * _secant(middle, ctx.eps, floor)
        close = (si - sj).abs() <= 1e-3 * middle
        difference_quotient = torch.where(close, derivative, (fi - fj) / torch.where(close, 1.0, si - sj))
        sum_quotient = torch.where(middle > 0, (fi + fj) / torch.where(middle > 0, si + sj, 1.0), derivative)
        inside = u @ (difference_quotient * symmetric + sum_quotient * skew) @ vh
        left = ((grad @ vh.mT - u @ core) * secant.unsqueeze(-2)) @ vh
        right = (u * secant.unsqueeze(-2)) @ (u.mT @ grad - core @ vh)
        return inside + left + right, None


def _floor(s: Tensor) -> float:
    """Singular values below this are rounding, where the largest is 1."""
    return torch.finfo(s.dtype).eps * s.shape[-1]


def _secant(s: Tensor, eps: float, floor: float | None = None) -> Tensor:
    """s^eps / s, which below the floor stays at its value there."""
    return s.clamp_min(_floor(s) if floor is None else floor) ** (eps - 1)
