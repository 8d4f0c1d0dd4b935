# What each part is for: the sections of the paper
from skipless import (
    conditioning as conditioning,
)
from skipless import (
    data as data,
)
from skipless import (
    evaluators as evaluators,
)
from skipless import (
    init as init,
)
from skipless import (
    models as models,
)
from skipless import (
    nn as nn,
)
from skipless import (
    optim as optim,
)
from skipless import (
    planning as planning,
)
from skipless import (
    recipes as recipes,
)
from skipless import (
    studies as studies,
)
from skipless import (
    tasks as tasks,
)
from skipless import (
    training as training,
)

# Sections 4, 5 and A.3 to A.7: conditioning
from skipless.conditioning import (
    attn_jacobian as attn_jacobian,
)
from skipless.conditioning import (
    measure_conditioning as measure_conditioning,
)
from skipless.conditioning import (
    mlp_jacobian as mlp_jacobian,
)
from skipless.conditioning import (
    param_jacobian as param_jacobian,
)
from skipless.conditioning import (
    spectrum as spectrum,
)

# What bad input raises
from skipless.errors import InputError as InputError

# Section 5: the initialisation
from skipless.init import (
    PRESETS as PRESETS,
)
from skipless.init import (
    SkiplessInit as SkiplessInit,
)
from skipless.init import (
    query_key as query_key,
)
from skipless.init import (
    scaled_uniform_orthogonal as scaled_uniform_orthogonal,
)
from skipless.init import (
    value_output as value_output,
)

# Models: skips out, initialisation in
from skipless.models import (
    BlockView as BlockView,
)
from skipless.models import (
    block_views as block_views,
)
from skipless.models import (
    create_model as create_model,
)
from skipless.models import (
    initialize_ as initialize_,
)
from skipless.models import (
    inspect_init as inspect_init,
)
from skipless.models import (
    remove_skips_ as remove_skips_,
)

# Optimizers
from skipless.optim import SOAP as SOAP
from skipless.optim import WarmupCosine as WarmupCosine
from skipless.optim import param_groups as param_groups

__version__: str
