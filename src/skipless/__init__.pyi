# What each part is for: the sections of the paper
from skipless import (
    adapters as adapters,
    conditioning as conditioning,
    data as data,
    evaluators as evaluators,
    init as init,
    models as models,
    nn as nn,
    optim as optim,
    planning as planning,
    recipes as recipes,
    studies as studies,
    tasks as tasks,
    training as training,
)

# Sections 4, 5 and A.3 to A.7: conditioning
from skipless.conditioning import (
    attn_jacobian as attn_jacobian,
    measure_conditioning as measure_conditioning,
    mlp_jacobian as mlp_jacobian,
    param_jacobian as param_jacobian,
    spectrum as spectrum,
)

# What bad input raises
from skipless.errors import InputError as InputError

# Section 5: the initialisation
from skipless.init import (
    PRESETS as PRESETS,
    SkiplessInit as SkiplessInit,
    query_key as query_key,
    scaled_uniform_orthogonal as scaled_uniform_orthogonal,
    value_output as value_output,
)

# Models: skips out, initialisation in
from skipless.models import (
    BlockView as BlockView,
    block_views as block_views,
    create_model as create_model,
    initialize_ as initialize_,
    inspect_init as inspect_init,
    inspect_tokens as inspect_tokens,
    remove_skips_ as remove_skips_,
    replace_attention_ as replace_attention_,
    restore_attention_ as restore_attention_,
    solve_attention_ as solve_attention_,
)

# Optimizers
from skipless.optim import SOAP as SOAP, WarmupCosine as WarmupCosine, param_groups as param_groups

__version__: str
