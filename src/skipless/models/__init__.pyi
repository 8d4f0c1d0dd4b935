# Views of a block
from skipless.models.blocks import BlockView as BlockView
from skipless.models.blocks import LinearMap as LinearMap
from skipless.models.blocks import SubBlock as SubBlock

# Checks of a model's initialisation
from skipless.models.inspection import BlockInit as BlockInit
from skipless.models.inspection import InitReport as InitReport
from skipless.models.inspection import inspect_init as inspect_init

# Changes to a model
from skipless.models.surgery import (
    REGISTERED as REGISTERED,
)
from skipless.models.surgery import (
    block_views as block_views,
)
from skipless.models.surgery import (
    create_model as create_model,
)
from skipless.models.surgery import (
    initialize_ as initialize_,
)
from skipless.models.surgery import (
    load_timm as load_timm,
)
from skipless.models.surgery import (
    remove_skips_ as remove_skips_,
)
