"""Token Graying (Always Skip Attention, arXiv 2505.01996): a flatter spectrum for the tokens that enter a model."""

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
    """Raise the tokens' spectrum, relative to its peak, to a power below 1: what is small grows, kappa(X) falls.

    - `"svd"`: X = U S V^T becomes U S~ V^T with S~ = (S / max S)^eps. kappa(X) becomes kappa(X)^eps exactly.
    - `"dct"`: the same with the magnitudes of the coefficients of the two-dimensional DCT-II, X^ = D_n X D_d^T, which
      keep their signs, and the inverse DCT. Products with two fixed matrices instead of an SVD, a tenth of its cost or
      less; what becomes of kappa(X) is not exact.

    No parameters, no buffers; each image by itself, so that a batch does not matter. Computed in float32 or float64,
    whatever the precision around it, and differentiable, also where singular values coincide or vanish.

    Args:
        eps: the power, above 0 and at most 1; 1 changes nothing. The ablation's: 0.9, 0.7, 0.6, 0.5.
        method: see above; DCT is the cheap one.
        peak: the formula leaves the largest singular value (coefficient) at 1. `"kept"` (default) puts max S back:
            divided by it, tokens become so small, 1 / sqrt(n d), that the LayerNorm's eps of 1e-6 drowns them; kappa is
            the same. `"one"` is the formula as it stands.

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
        """Tokens to tokens, in their own dtype."""
        with torch.autocast(x.device.type, enabled=False):
            wide = x if x.dtype == torch.float64 else x.float()
            grayed = _by_svd(wide, self.eps) if self.method == "svd" else _by_dct(wide, self.eps)
            if self.peak == "kept":
                grayed = grayed * _peak(wide, self.method)
            return grayed.to(x.dtype)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"eps={self.eps}, method={self.method!r}, peak={self.peak!r}"


def _by_dct(x: Float[Tensor, "b n d"], eps: float) -> Float[Tensor, "b n d"]:
    rows, columns = (dct_matrix(size, x.dtype, x.device) for size in x.shape[1:])
    coefficients = rows @ x @ columns.mT
    magnitude = coefficients.abs()
    share = magnitude / magnitude.amax((1, 2), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    # share^(eps - 1), the factor and nearly the derivative, has no bound at 0: rounding's size is taken for 0 there.
    share = share.clamp_min(torch.finfo(x.dtype).eps)
    return rows.mT @ (coefficients.sign() * share**eps) @ columns


def _by_svd(x: Float[Tensor, "b n d"], eps: float) -> Float[Tensor, "b n d"]:
    share = x / _peak(x, "svd").clamp_min(torch.finfo(x.dtype).tiny)
    return _SpectralPower.apply(share, eps)[0]  # pyright: ignore[reportOptionalSubscript]


def _peak(x: Float[Tensor, "b n d"], method: GrayingMethod) -> Float[Tensor, "b 1 1"]:
    if method == "svd":
        return torch.linalg.matrix_norm(x, 2, keepdim=True)
    rows, columns = (dct_matrix(size, x.dtype, x.device) for size in x.shape[1:])
    return (rows @ x @ columns.mT).abs().amax((1, 2), keepdim=True)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def dct_matrix(size: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "size size"]:
    """The orthonormal DCT-II as a matrix: `dct_matrix @ x` are the coefficients, its transpose is the inverse.

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
    """U S^eps V^T. Autograd's own derivative of the SVD divides by differences of singular values, which may be 0; that
    of a function of them needs divided differences only, which stay finite.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        u, s, vh = torch.linalg.svd(x, full_matrices=False)
        return (u * (s * _slope(s, eps)).unsqueeze(-2)) @ vh, u, s, vh

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.eps = inputs[1]
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        u, s, vh = ctx.saved_tensors
        slope = _slope(s, ctx.eps)
        f = s * slope
        core = u.mT @ grad @ vh.mT
        even, odd = (core + core.mT) / 2, (core - core.mT) / 2
        si, sj, fi, fj = s.unsqueeze(-1), s.unsqueeze(-2), f.unsqueeze(-1), f.unsqueeze(-2)
        # Below the floor f is linear; beside a coinciding pair its difference quotient is its derivative.
        middle = (si + sj) / 2
        floor = _floor(s)
        derivative = torch.where(middle > floor, ctx.eps, 1.0) * _slope(middle, ctx.eps, floor)
        close = (si - sj).abs() <= 1e-3 * middle
        rising = torch.where(close, derivative, (fi - fj) / torch.where(close, 1.0, si - sj))
        turning = torch.where(middle > 0, (fi + fj) / torch.where(middle > 0, si + sj, 1.0), derivative)
        inside = u @ (rising * even + turning * odd) @ vh
        left = ((grad @ vh.mT - u @ core) * slope.unsqueeze(-2)) @ vh
        right = (u * slope.unsqueeze(-2)) @ (u.mT @ grad - core @ vh)
        return inside + left + right, None


def _floor(s: Tensor) -> float:
    """Below this share of the largest, singular values are rounding."""
    return torch.finfo(s.dtype).eps * s.shape[-1]


def _slope(s: Tensor, eps: float, floor: float | None = None) -> Tensor:
    """s^eps / s, with an end to its growth at 0."""
    return s.clamp_min(_floor(s) if floor is None else floor) ** (eps - 1)
