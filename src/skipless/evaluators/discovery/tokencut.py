"""TokenCut: one object by the normalised cut of the graph of similar tokens (Wang et al. 2022)."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from skipless.errors import InputError
from skipless.evaluators.discovery.normalized_cut import FLOAT32_TOKENS, normalised_cut
from skipless.evaluators.discovery.regions import (
    Discovery,
    bounding_box,
    connected_component,
    similarity_graph,
    validate_features,
)


@torch.no_grad()
def tokencut(
    features: Float[Tensor, "b tokens dim"],
    grid: tuple[int, int],
    *,
    tau: float = 0.2,
    eps: float = 1e-5,
    patch: int = 16,
    image_size: tuple[int, int] | Sequence[tuple[int, int]],
) -> list[Discovery]:
    """Find one object in each image by a normalised cut of its tokens: TokenCut, the paper's section 6.3.

    Tokens are L2-normalised; A is 1 where their similarity is above tau and eps elsewhere, D its row sums. v is the
    second smallest solution of (D - A) v = lambda D v with v^T D v = 1. The seed is the token of largest |v|, and v is
    positive there. Foreground is v > mean(v); the object is the 4-connected region of it that holds the seed.

    Where the graph leaves the answer open, these rules decide:

    - |v| is largest at several tokens (equal to 1e-9): the seed is the middle one of them, row by row.
    - v equals its mean (to 1e-9 of max |v|): background.
    - lambda_2 is repeated (to 1e-9), as with three clusters alike: v is the projection of the first token that has one
      onto the eigenvectors, so that its cluster is the foreground.
    - No cut is better than any other (all pairs similar, none, features all zero, one token): the object is the whole
      image, the seed token 0, v zero and the method `no cut`.

    Args:
        features: a feature for each patch, row by row, without class or register tokens; in the original, the keys of
            the last block with the heads side by side. float16 and bfloat16 are computed in float32.
        grid: (rows, columns) of patches.
        tau: tokens of larger similarity are connected.
        eps: weight of all other pairs, positive; it keeps the graph connected.
        patch: side of a patch in pixels.
        image_size: unpadded (height, width), of all images or of each.

    Returns:
        A `Discovery` for each image, tensors on the features' device. Its third eigenvalue is good to about 1e-6.

    Raises:
        InputError: if grid, image size and features do not fit, or a feature is not finite.

    Example:
        >>> features = torch.tensor([[[1.0, 0.1], [1.0, 0.0], [0.1, 1.0]]])
        >>> found = tokencut(features, (1, 3), image_size=(16, 40))[0]
        >>> found.mask.tolist(), found.seed, found.box
        ([[False, False, True]], 2, (32, 0, 40, 16))
    """
    if not 0 < eps < 1 or math.isnan(tau):
        raise InputError(
            f"eps is {eps:g} and tau {tau:g}; give an eps between 0 and 1, 1e-5 in the original, and a number for tau"
        )
    features, sizes = validate_features(features, grid, patch, image_size)
    return [_discover(image, grid, tau, eps, patch, size) for image, size in zip(features, sizes, strict=True)]


def _discover(
    features: Float[Tensor, "tokens dim"],
    grid: tuple[int, int],
    tau: float,
    eps: float,
    patch: int,
    size: tuple[int, int],
) -> Discovery:
    # On a GPU there is time for float64, and no float32 product without TF32 to be sure of.
    single = len(features) >= FLOAT32_TOKENS and not features.is_cuda
    cut = normalised_cut(similarity_graph(features, tau, torch.float32 if single else torch.float64), eps)
    mask = connected_component(cut.foreground.reshape(grid), cut.seed)
    return Discovery(
        mask=mask,
        seed=cut.seed,
        box=bounding_box(mask, patch, size),
        foreground=cut.foreground.reshape(grid),
        method=cut.method,
        proven=cut.proven,
        tied=cut.tied,
        eigenvector=cut.vector.reshape(grid),
        error=cut.error,
        eigenvalues=cut.eigenvalues,
    )
