"""TokenCut: one object by a normalised cut of the graph of similar tokens (Wang et al. 2022)."""

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
    """Find one object in each image with TokenCut (section 6.3): a normalised cut of the token graph.

    Tokens are L2-normalised. The affinity A is 1 where their cosine similarity is above tau and eps elsewhere; D is the
    diagonal matrix of its row sums. v is the second smallest eigenvector of (D - A) v = lambda D v with v^T D v = 1.
    The seed is the token of largest |v|, and v is positive there. The foreground is v > mean(v), and the object is the
    seed's 4-connected component of it.

    These rules break ties:

    - If |v| is largest at several tokens (equal to 1e-9), the seed is the middle one in row-major order.
    - If v equals its mean (to 1e-9 of max |v|), the token is background.
    - If lambda_2 is repeated (to 1e-9), as with three equal clusters, v is the projection onto the eigenspace of the
      first token with a non-zero projection, so that this token's cluster is the foreground.
    - If no cut is better than any other (all pairs similar, no pair similar, all features zero, one token), the object
      is the whole image, the seed is token 0, v is zero and the method is `no cut`.

    Args:
        features: one feature vector for each patch in row-major order, without class or register tokens. The original
            takes the keys of the last block with the heads concatenated. float16 and bfloat16 are converted to float32.
        grid: (rows, columns) of patches.
        tau: tokens with a larger cosine similarity are connected.
        eps: weight of all other pairs, positive, which keeps the graph connected.
        patch: side of a patch in pixels.
        image_size: (height, width) before padding, one for all images or one for each.

    Returns:
        A `Discovery` for each image, with tensors on the features' device. The third eigenvalue is accurate to about
        1e-6.

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
    # On a GPU float64 is fast enough, and float32 products may silently use TF32.
    single = len(features) >= FLOAT32_TOKENS and features.device.type == "cpu"
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
