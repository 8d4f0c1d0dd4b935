"""Train, measure and evaluate transformers without skip connections (arXiv 2510.00345)."""

# Sections 4, 5 and A.3 to A.7: conditioning
from skipless.conditioning import attn_jacobian, measure_conditioning, mlp_jacobian, param_jacobian, spectrum

# What bad input raises
from skipless.errors import InputError

# Section 5: the initialisation
from skipless.init import PRESETS, SkiplessInit, query_key, scaled_uniform_orthogonal, value_output

# Models: skips out, initialisation in
from skipless.models import BlockView, block_views, create_model, initialize_, inspect_init, remove_skips_

# Optimizers
from skipless.optim import SOAP, WarmupCosine, param_groups

__all__ = [
    "PRESETS",
    "SOAP",
    "BlockView",
    "InputError",
    "SkiplessInit",
    "WarmupCosine",
    "attn_jacobian",
    "block_views",
    "create_model",
    "initialize_",
    "inspect_init",
    "measure_conditioning",
    "mlp_jacobian",
    "param_groups",
    "param_jacobian",
    "query_key",
    "remove_skips_",
    "scaled_uniform_orthogonal",
    "spectrum",
    "value_output",
]
