"""The paper's maths meets other people's modules."""

from skipless.models.blocks import BlockView as BlockView
from skipless.models.blocks import LinearMap as LinearMap
from skipless.models.blocks import SubBlock as SubBlock
from skipless.models.inspection import BlockInit as BlockInit
from skipless.models.inspection import InitReport as InitReport
from skipless.models.inspection import inspect_init as inspect_init
from skipless.models.surgery import REGISTERED as REGISTERED
from skipless.models.surgery import block_views as block_views
from skipless.models.surgery import create_model as create_model
from skipless.models.surgery import initialize_ as initialize_
from skipless.models.surgery import remove_skips_ as remove_skips_
