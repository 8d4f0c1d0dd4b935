"""Matrices with chosen singular values, and their spectra by LAPACK, in NumPy alone."""

import numpy as np

SPECTRA = {
    "even": lambda n: np.linspace(1.0, 3.0, n),
    "geometric 1e2": lambda n: np.logspace(0, -2, n),
    "geometric 1e6": lambda n: np.logspace(0, -6, n),
    "geometric 1e12": lambda n: np.logspace(0, -12, n),
    "one far below": lambda n: np.append(np.linspace(1.0, 2.0, n - 1), 1e-4),
    "one just below": lambda n: np.append(np.linspace(1.0, 2.0, n - 1), 0.999),
    "one below a cluster": lambda n: np.append(np.full(n - 1, 1.0), 1e-3),
    "two clusters": lambda n: np.append(
        np.linspace(1.0, 1.0 + 1e-9, n - n // 2), np.linspace(0.1, 0.1 + 1e-10, n // 2)
    ),
    "repeated": lambda n: np.sort(np.resize([3.0, 2.0, 1.0, 0.5], n)),
    "a crowd at the bottom": lambda n: 0.01 + np.linspace(0, 1, n) ** 3,
}


def rotation(rows: int, columns: int, seed: int) -> np.ndarray:
    """Orthonormal columns."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((rows, columns)))[0]


def matrix(values: np.ndarray, rows: int, columns: int, seed: int) -> np.ndarray:
    """A matrix with these singular values, and zeros for the rest, up to rounding."""
    k = len(values)
    return rotation(rows, k, seed) * values @ rotation(columns, k, seed + 1).T


def ends(a: np.ndarray) -> tuple[float, float]:
    """The largest singular value and the min(shape)-th."""
    values = np.linalg.svd(a.astype(np.float64), compute_uv=False)
    return float(values[0]), float(values[-1])


def density(a: np.ndarray, grid: np.ndarray, width: float) -> np.ndarray:
    """Gaussians of `width` decades about log10 of every singular value, on a grid of values."""
    out = np.zeros(len(grid))
    values = np.linalg.svd(a.astype(np.float64), compute_uv=False)
    for value in values:
        out += np.exp(-0.5 * ((np.log10(grid) - np.log10(value)) / width) ** 2)
    return out / (len(values) * width * np.sqrt(2 * np.pi))
