"""Section 5 as tensor maths, in the paper's orientation (`x @ w`); needs torch and nothing else."""

from skipless.init.mlp import scaled_uniform_orthogonal as scaled_uniform_orthogonal
from skipless.init.query_key import query_key as query_key
from skipless.init.scheme import PRESETS as PRESETS
from skipless.init.scheme import SkiplessInit as SkiplessInit
from skipless.init.value_output import value_output as value_output
