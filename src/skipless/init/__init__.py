"""Section 5 as tensor maths, in the paper's orientation (`x @ w`); its modules import torch and jaxtyping alone."""

# The three parts
from skipless.init.mlp import scaled_uniform_orthogonal
from skipless.init.query_key import query_key

# The scheme
from skipless.init.scheme import PRESETS, SkiplessInit
from skipless.init.value_output import value_output

__all__ = ["PRESETS", "SkiplessInit", "query_key", "scaled_uniform_orthogonal", "value_output"]
