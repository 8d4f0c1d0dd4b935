# Views of a block
from skipless.models.blocks import BlockView as BlockView, LinearMap as LinearMap, SubBlock as SubBlock

# timm's models, with skips or without
from skipless.models.factory import (
    REGISTERED as REGISTERED,
    create_model as create_model,
    load_timm as load_timm,
)

# Changes to a model
from skipless.models.initialization import initialize_ as initialize_

# Checks of a model's initialisation
from skipless.models.inspection import BlockInit as BlockInit, InitReport as InitReport, inspect_init as inspect_init
from skipless.models.surgery import block_views as block_views, remove_skips_ as remove_skips_
