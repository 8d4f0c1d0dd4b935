# Views of a block
from skipless.models.blocks import BlockView as BlockView, LinearMap as LinearMap, SubBlock as SubBlock

# Checks of a model's initialisation
from skipless.models.inspection import BlockInit as BlockInit, InitReport as InitReport, inspect_init as inspect_init

# Changes to a model
from skipless.models.surgery import (
    REGISTERED as REGISTERED,
    block_views as block_views,
    create_model as create_model,
    initialize_ as initialize_,
    load_timm as load_timm,
    remove_skips_ as remove_skips_,
)
