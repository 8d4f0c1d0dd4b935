"""Query and key weights with W_Q W_K^T = alpha Z + beta I, for every head of an attention (Eq. 11, section 5.2).

The form is that of mimetic initialisation (Trockman and Kolter 2023, arXiv 2305.09828).
"""

import math
from collections.abc import Callable
from functools import cache, partial

import torch
from jaxtyping import Float, Float64
from torch import Generator, Tensor

from skipless.choices import Factors, Noise
from skipless.errors import InputError
from skipless.init.random_matrices import draw_haar, normal, uniform
from skipless.init.truncated_svd import top_right_singular
from skipless.init.validate import check_target

Factored = tuple[Float64[Tensor, "d hq"], Float64[Tensor, "d hk"]]


def query_key(
    dim: int,
    heads: int,
    alpha: float,
    beta: float,
    *,
    head_dim: int | None = None,
    key_heads: int | None = None,
    factors: Factors = "per_head",
    noise: Noise = "normal",
    generator: Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Float[Tensor, "d hq"], Float[Tensor, "d hk"]]:
    """Query and key weights whose products are the best rank-d_h approximations of alpha Z + beta I (Eq. 11).

    The paper writes Eq. 11 for one head of full width. A head of size d_h can hold only d_h of the d singular
    directions, and the paper does not say which ones. `factors` chooses:

    - `"per_head"` (default): each head has its own Z and keeps the top d_h directions of its own alpha Z + beta I. Only
      with this reading does every head's attention start diagonally dominant: one SVD sliced across six heads of
      d = 384 gave mean diagonals from 0.98 down to 0.01.
    - `"sliced"`: each block has one Z, and its singular directions are dealt to the heads in descending order. The sum
      over the heads is then exactly alpha Z + beta I.
    - `"partition"` (alpha = 0 only): one random basis of R^d is dealt to the heads. Their products sum to beta I.

    With alpha = 0 any basis consists of singular vectors of beta I. An SVD would return the coordinate axes and so give
    each head the *same* d_h axes. Hence `"per_head"` then draws a random orthonormal basis for each head.

    In grouped-query attention r query heads share a key head. The key then takes the top d_h right singular directions
    of its r matrices stacked. This is the least-squares choice, and for r = 1 the same as above.

    Args:
        dim: token width d.
        heads: number of query heads.
        alpha: scale of Z.
        beta: scale of the identity.
        head_dim: d_h; d / heads by default.
        key_heads: number of key heads; a divisor of `heads`, equal to it by default.
        factors: which directions a head keeps, see above.
        noise: distribution of Z's entries, whose variance is 1/d: N(0, 1/d) as in the paper, or uniform on +-sqrt(3/d)
            as in the first author's public code.
        generator: source of randomness.
        dtype: dtype of the result; the factorisation is done in float64.

    Returns:
        `(w_q, w_k)` of shapes (d, heads x d_h) and (d, key_heads x d_h), heads side by side, used as `x @ w`. Each pair
        shares the singular values evenly: W_Q = U sqrt(S), W_K = V sqrt(S).

    Raises:
        InputError: for sizes that do not divide, alpha = beta = 0, unknown names, or `"partition"` with alpha != 0.

    Example:
        >>> w_q, w_k = query_key(4, heads=1, alpha=0.0, beta=2.0, dtype=torch.float64)
        >>> torch.allclose(w_q @ w_k.T, 2 * torch.eye(4, dtype=torch.float64))
        True
    """
    work = draw_query_key(
        dim,
        heads,
        alpha,
        beta,
        head_dim=head_dim,
        key_heads=key_heads,
        factors=factors,
        noise=noise,
        generator=generator,
    )
    w_q, w_k = work()
    return w_q.to(dtype), w_k.to(dtype)


def draw_query_key(
    dim: int,
    heads: int,
    alpha: float,
    beta: float,
    *,
    head_dim: int | None = None,
    key_heads: int | None = None,
    factors: Factors = "per_head",
    noise: Noise = "normal",
    generator: Generator | None = None,
    device: torch.device | None = None,
) -> Callable[[], Factored]:
    """Draw what `query_key` draws now, to be factorised later, on a device if one is given; see `random_matrices`."""
    check_target(alpha, beta, factors, noise)
    head_dim, key_heads = _resolve_sizes(dim, heads, head_dim, key_heads, factors)
    if alpha == 0:
        pairs = _draw_identities(dim, beta, head_dim, key_heads, heads // key_heads, factors, generator, device)
    else:
        draw = normal if noise == "normal" else uniform
        sliced = factors == "sliced"
        count, group, rank = (1, 1, heads * head_dim) if sliced else (key_heads, heads // key_heads, head_dim)
        pairs = []
        for _ in range(count):
            targets = draw(group, dim, dim, std=dim**-0.5, generator=generator).mul_(alpha)
            targets.diagonal(dim1=1, dim2=2).add_(beta)
            # A head that is wider than d has its d directions spread over it, so that no column is dead.
            spread = draw_haar(dim, rank, generator=generator, device=device) if rank > dim else None
            pairs.append(partial(_low_rank_factors, targets, min(rank, dim), spread, device))

    def factorise() -> Factored:
        w_q, w_k = (torch.cat(side, dim=1) for side in zip(*(pair() for pair in pairs), strict=True))
        return w_q, w_k

    return factorise


def _low_rank_factors(
    targets: Float64[Tensor, "r d d"],
    rank: int,
    spread: Callable[[], Float64[Tensor, "rank width"]] | None,
    device: torch.device | None,
) -> Factored:
    """The r query factors, side by side, and the one key factor that best approximate r matrices at a given rank.

    The products are exact even where s is not: A V s^-1/2 (V s^1/2)^T = A V V^T. Only the balance between the two
    factors depends on s.
    """
    group, dim, _ = targets.shape
    targets = targets.to(device)
    s_squared, v = top_right_singular(targets, rank)
    # Stacking multiplies s by sqrt(group). Dividing by it keeps every head's two factors equal in norm.
    s = (s_squared.clamp_min(torch.finfo(s_squared.dtype).tiny) / group).sqrt()
    queries, key = targets @ (v * s.rsqrt()), v * s.sqrt()
    if spread is not None:
        over = spread()
        queries, key = queries @ over, key @ over
    return queries.transpose(0, 1).reshape(dim, -1), key


def _draw_identities(
    dim: int,
    beta: float,
    head_dim: int,
    key_heads: int,
    group: int,
    factors: Factors,
    generator: Generator | None,
    device: torch.device | None,
) -> list[Callable[[], Factored]]:
    """Factors of beta B B^T for every key head, where B is a random basis of its own or a part of one basis of R^d."""
    root = math.sqrt(abs(beta))

    def scaled(basis: Callable[[], Float64[Tensor, "d k"]], head: int | None) -> Factored:
        b = basis() if head is None else basis()[:, head * head_dim : (head + 1) * head_dim]
        return (math.copysign(root, beta) * b).repeat(1, group), root * b

    if factors == "per_head":
        bases = [draw_haar(dim, head_dim, generator=generator, device=device) for _ in range(key_heads)]
        return [partial(scaled, basis, None) for basis in bases]
    whole = cache(draw_haar(dim, key_heads * head_dim, generator=generator, device=device))
    return [partial(scaled, whole, head) for head in range(key_heads)]


def _resolve_sizes(
    dim: int, heads: int, head_dim: int | None, key_heads: int | None, factors: Factors
) -> tuple[int, int]:
    """Fill in the defaults of head_dim and key_heads, and refuse sizes that do not fit each other."""
    if heads < 1 or dim < 1:
        raise InputError(f"query_key needs dim >= 1 and heads >= 1, got dim={dim}, heads={heads}")
    if head_dim is None and dim % heads:
        raise InputError(f"dim={dim} is not divisible by heads={heads}; pass head_dim=, or another head count")
    head_dim = dim // heads if head_dim is None else head_dim
    key_heads = heads if key_heads is None else key_heads
    if head_dim < 1 or key_heads < 1 or heads % key_heads:
        raise InputError(f"{key_heads} key heads of size {head_dim} cannot be shared by {heads} query heads")
    if factors != "per_head" and (key_heads != heads or heads * head_dim > dim):
        raise InputError(
            f"factors={factors!r} deals {dim} directions to {heads} heads of size {head_dim} with {key_heads} keys; it "
            "needs a key for each head, and heads x head_dim <= dim: use 'per_head'"
        )
    return head_dim, key_heads
