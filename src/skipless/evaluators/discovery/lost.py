"""LOST: one object from the token that is similar to the fewest others (Siméoni et al. 2021)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from skipless.errors import InputError
from skipless.evaluators.discovery.regions import (
    Discovery,
    bounding_box,
    connected_component,
    similarity_graph,
    validate_features,
)


@torch.no_grad()
def lost(
    features: Float[Tensor, "b tokens dim"],
    grid: tuple[int, int],
    *,
    k: int = 100,
    patch: int = 16,
    image_size: tuple[int, int] | Sequence[tuple[int, int]],
) -> list[Discovery]:
    """Find one object in each image with LOST (section 6.3): grow a region from the token of lowest degree.

    The degree of a token is the number of other tokens with which it has a positive inner product. The seed is the
    token of lowest degree. Of the k tokens of lowest degree, those with a positive inner product with the seed form the
    expanded set. The foreground is every token whose inner products with this set have a positive sum, and the object
    is the seed's 4-connected component of it. Features are not normalised, as in the original.

    Among equal degrees, the first token in row-major order comes first. A token of zeros is never the seed. If all
    tokens are zeros, the object is the whole image, and the method is `no cut`.

    Args:
        features: one feature vector for each patch in row-major order, without class or register tokens. The original
            takes the keys of the last block with the heads concatenated. float16 and bfloat16 are converted to float32.
        grid: (rows, columns) of patches.
        k: number of lowest-degree tokens that the seed may be expanded by; all, if there are fewer.
        patch: side of a patch in pixels.
        image_size: (height, width) before padding, one for all images or one for each.

    Returns:
        A `Discovery` for each image. `similarity` holds the summed inner products, `proven` says that none of them is
        zero within rounding, and `tied` counts the tokens of lowest degree.

    Raises:
        InputError: if grid, image size and features do not fit, a feature is not finite, or k is below 1.

    Example:
        >>> features = torch.tensor([[[1.0, -0.1], [1.0, -0.2], [-0.1, 1.0]]])
        >>> found = lost(features, (1, 3), image_size=(16, 40))[0]
        >>> found.mask.tolist(), found.seed, found.box
        ([[False, False, True]], 2, (32, 0, 40, 16))
    """
    if k < 1:
        raise InputError(f"k is {k}; give at least 1 token to expand the seed by, 100 in the original")
    features, sizes = validate_features(features, grid, patch, image_size)
    return [_grow_seed(image, grid, k, patch, size) for image, size in zip(features, sizes, strict=True)]


def _grow_seed(
    features: Float[Tensor, "tokens dim"], grid: tuple[int, int], k: int, patch: int, size: tuple[int, int]
) -> Discovery:
    positive = similarity_graph(features, 0.0, torch.float32).bool()
    features = features.double()
    # A common factor changes no sign; squares of large features must not overflow.
    features = features / features.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    nonzero = features.any(1)
    degree = torch.where(nonzero, positive.sum(1) - 1, len(features))
    order = degree.argsort(stable=True)
    seed = int(order[0])
    lowest = order[:k]
    expanded = features[lowest[positive[seed, lowest]]].sum(0)
    similarity = features @ expanded
    # worst-case rounding error of the sums, relative to the product of the norms
    rounding = (features.shape[1] + k) * torch.finfo(torch.float64).eps * features.norm(dim=1)
    proven = bool((similarity.abs() > rounding * features[lowest].norm(dim=1).sum())[nonzero].all())
    foreground = (similarity > 0) if bool(nonzero.any()) else torch.ones_like(nonzero)
    mask = connected_component(foreground.reshape(grid), seed)
    return Discovery(
        mask=mask,
        seed=seed,
        box=bounding_box(mask, patch, size),
        foreground=foreground.reshape(grid),
        method="lost" if bool(nonzero.any()) else "no cut",
        proven=proven,
        tied=int((degree == degree[seed]).sum()),
        similarity=similarity.reshape(grid),
    )
