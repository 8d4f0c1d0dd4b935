"""Train, measure and evaluate transformers without skip connections (arXiv 2510.00345)."""

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
    "block_views",
    "create_model",
    "initialize_",
    "inspect_init",
    "param_groups",
    "query_key",
    "remove_skips_",
    "scaled_uniform_orthogonal",
    "value_output",
]
