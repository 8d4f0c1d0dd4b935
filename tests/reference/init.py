"""The initialisation scheme as slowly and literally as it can be written: one head, one full SVD at a time."""

import math

import numpy as np


def truncated_target(target: np.ndarray, head_dim: int) -> np.ndarray:
    """The best rank-d_h approximation of one d x d matrix, by the full SVD (Eckart-Young)."""
    u, s, vt = np.linalg.svd(target)
    out = np.zeros_like(target)
    for k in range(min(head_dim, len(s))):
        out += s[k] * np.outer(u[:, k], vt[k])
    return out


def mean_square_gain(w: np.ndarray, n: int = 4000, seed: int = 0) -> float:
    """How much the mean square of a white x grows under x @ w, by sampling."""
    x = np.random.default_rng(seed).standard_normal((n, w.shape[0]))
    return float(np.mean((x @ w) ** 2) / np.mean(x**2))


def attention(x: np.ndarray, w_q: np.ndarray, w_k: np.ndarray, w_v: np.ndarray, w_o: np.ndarray, heads: int):
    """Multi-head self-attention of section 2 with the usual 1 / sqrt(d_h), loops over heads and rows."""
    head_dim = w_q.shape[1] // heads
    values = []
    for h in range(heads):
        part = slice(h * head_dim, (h + 1) * head_dim)
        logits = (x @ w_q[:, part]) @ (x @ w_k[:, part]).T / math.sqrt(head_dim)
        rows = []
        for row in logits:
            e = np.exp(row - row.max())
            rows.append(e / e.sum())
        values.append(np.stack(rows) @ (x @ w_v[:, part]))
    return np.concatenate(values, axis=1) @ w_o
