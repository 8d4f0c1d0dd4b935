# Views of a block
from skipless.models.blocks import BlockView as BlockView, LinearMap as LinearMap, SubBlock as SubBlock

# Attention with a given mean diagonal
from skipless.models.calibration import calibrate_ as calibrate_

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

# Positions and skips
from skipless.models.positions import set_positions_ as set_positions_
from skipless.models.surgery import block_views as block_views, remove_skips_ as remove_skips_

# What becomes of tokens
from skipless.models.token_report import (
    BlockTokens as BlockTokens,
    TokenReport as TokenReport,
    inspect_tokens as inspect_tokens,
)
