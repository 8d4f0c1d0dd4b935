"""Layers of related papers."""

from skipless.nn.attention import (
    AttentionCore,
    ExponentialSPA,
    OrthogonalAttention,
    PolynomialAttention,
    ShapedAttention,
    UniformSPA,
    ValueSkipInit,
)
from skipless.nn.conditioned_tokens import ConditionedTokens
from skipless.nn.sine_low_rank import SineLowRank
from skipless.nn.token_graying import TokenGraying

__all__ = [
    "AttentionCore",
    "ConditionedTokens",
    "ExponentialSPA",
    "OrthogonalAttention",
    "PolynomialAttention",
    "ShapedAttention",
    "SineLowRank",
    "TokenGraying",
    "UniformSPA",
    "ValueSkipInit",
]
