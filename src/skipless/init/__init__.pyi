# Initialisers
from skipless.init.correlation_map import CorrelationMap as CorrelationMap, solve_linearity as solve_linearity
from skipless.init.mimetic import query_key as query_key
from skipless.init.mirrored import mirrored_mlp as mirrored_mlp
from skipless.init.mlp import scaled_uniform_orthogonal as scaled_uniform_orthogonal
from skipless.init.orthonormal import value_output as value_output
from skipless.init.positions import orthogonal_positions as orthogonal_positions, smooth_positions as smooth_positions

# The scheme
from skipless.init.scheme import PRESETS as PRESETS, SkiplessInit as SkiplessInit
