"""Attention that is not plain softmax: what stands between queries, keys and values, and the output map."""

from skipless.nn.attention.core import AttentionCore
from skipless.nn.attention.orthogonal import OrthogonalAttention
from skipless.nn.attention.polynomial import PolynomialAttention
from skipless.nn.attention.shaped import ShapedAttention, ValueSkipInit
from skipless.nn.attention.signal_preserving import ExponentialSPA, UniformSPA

__all__ = [
    "AttentionCore",
    "ExponentialSPA",
    "OrthogonalAttention",
    "PolynomialAttention",
    "ShapedAttention",
    "UniformSPA",
    "ValueSkipInit",
]
