# Initialisers
from skipless.init.mimetic import query_key as query_key
from skipless.init.mlp import scaled_uniform_orthogonal as scaled_uniform_orthogonal
from skipless.init.orthonormal import value_output as value_output

# The scheme
from skipless.init.scheme import PRESETS as PRESETS, SkiplessInit as SkiplessInit
