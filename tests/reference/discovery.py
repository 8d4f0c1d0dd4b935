"""TokenCut, LOST, CorLoc and weighted k-NN as slowly and literally as they can be written: float64, dense, loops."""

import math

import numpy as np
import scipy.linalg

TIE = 1e-9


def tokencut(features, grid, tau, eps, patch, image_size):
    """The published recipe for one image, ties by the documented rules: mask, seed, box, vector, eigenvalues."""
    n = len(features)
    unit = np.array([row / math.sqrt(sum(row * row)) if row.any() else row for row in features.astype(np.float64)])
    affinity = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            affinity[i, j] = 1.0 if unit[i] @ unit[j] > tau else eps
    degree = np.diag(affinity.sum(axis=1))
    values, vectors = scipy.linalg.eigh(degree - affinity, degree)
    vector = vectors[:, 1]
    size = np.abs(vector)
    tied = [i for i in range(n) if size[i] >= size.max() * (1 - TIE)]
    seed = tied[(len(tied) - 1) // 2]
    if vector[seed] < 0:
        vector = -vector
    foreground = (vector - vector.mean() > TIE * size.max()).reshape(grid)
    mask = component(foreground, seed)
    return mask, seed, box(mask, patch, image_size), vector, values[:3]


def lost(features, grid, k, patch, image_size):
    """The published recipe for one image; equal degrees row by row. Returns mask, seed, box."""
    n = len(features)
    product = features.astype(np.float64) @ features.astype(np.float64).T
    degree = [sum(1 for j in range(n) if j != i and product[i, j] > 0) for i in range(n)]
    order = sorted(range(n), key=lambda i: (degree[i], i))
    seed = order[0]
    expanded = [i for i in order[:k] if product[seed, i] > 0]
    sums = sum(product[i] for i in expanded)
    mask = component((sums > 0).reshape(grid), seed)
    return mask, seed, box(mask, patch, image_size)


def component(foreground, seed):
    """Grow from the seed by one 4-neighbourhood at a time until nothing is added."""
    rows, columns = foreground.shape
    mask = np.zeros((rows, columns), dtype=bool)
    mask[seed // columns, seed % columns] = True
    grown = True
    while grown:
        grown = False
        for y in range(rows):
            for x in range(columns):
                near = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
                touches = any(0 <= a < rows and 0 <= b < columns and mask[a, b] for a, b in near)
                if foreground[y, x] and not mask[y, x] and touches:
                    mask[y, x] = grown = True
    return mask


def box(mask, patch, image_size):
    """(xmin, ymin, xmax, ymax), the maximum excluded and inside the unpadded image."""
    ys, xs = np.where(mask)
    height, width = image_size
    return (
        int(xs.min()) * patch,
        int(ys.min()) * patch,
        min((int(xs.max()) + 1) * patch, width),
        min((int(ys.max()) + 1) * patch, height),
    )


def pixel_iou(a, b):
    """Count pixels: boxes of whole numbers, the maximum excluded."""
    first = {(x, y) for x in range(a[0], a[2]) for y in range(a[1], a[3])}
    second = {(x, y) for x in range(b[0], b[2]) for y in range(b[1], b[3])}
    return len(first & second) / len(first | second)


def knn(train, train_labels, test, test_labels, k, temperature):
    """One test image, one neighbour, one vote at a time."""
    classes = max(*train_labels, *test_labels) + 1
    top1 = top5 = 0
    for feature, label in zip(test, test_labels, strict=True):
        cosines = [feature @ other / math.sqrt((feature @ feature) * (other @ other)) for other in train]
        nearest = sorted(range(len(train)), key=lambda i: (-cosines[i], i))[:k]
        votes = [0.0] * classes
        for i in nearest:
            votes[train_labels[i]] += math.exp(cosines[i] / temperature)
        ranking = sorted(range(classes), key=lambda c: (-votes[c], c))
        top1 += ranking[0] == label
        top5 += label in ranking[: min(5, k)]
    return 100 * top1 / len(test), 100 * top5 / len(test)
