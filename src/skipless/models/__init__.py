"""The paper's maths meets other people's modules."""

# How a block looks from here
from skipless.models.blocks import BlockView, LinearMap, SubBlock

# What is wrong with a model's initialisation
from skipless.models.inspection import BlockInit, InitReport, inspect_init

# What is done to a model
from skipless.models.surgery import REGISTERED, block_views, create_model, initialize_, load_timm, remove_skips_

__all__ = [
    "REGISTERED",
    "BlockInit",
    "BlockView",
    "InitReport",
    "LinearMap",
    "SubBlock",
    "block_views",
    "create_model",
    "initialize_",
    "inspect_init",
    "load_timm",
    "remove_skips_",
]
