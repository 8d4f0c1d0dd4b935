# Adapters of your own
from skipless.models.adapters.known import (
    register_adapter as register_adapter,
    unregister_adapter as unregister_adapter,
)

# Attention that is not plain softmax
from skipless.models.attention_config import AttentionConfig as AttentionConfig
from skipless.models.attention_core import (
    replace_attention_ as replace_attention_,
    restore_attention_ as restore_attention_,
    solve_attention_ as solve_attention_,
)

# Views of a block
from skipless.models.blocks import BlockView as BlockView, LinearMap as LinearMap, SubBlock as SubBlock
from skipless.models.calls import BlockContext as BlockContext

# Checks of a model's initialisation
from skipless.models.inspection.init_report import (
    BlockInit as BlockInit,
    InitReport as InitReport,
    inspect_init as inspect_init,
)

# What becomes of tokens, and of a loss's gradient on its way back
from skipless.models.inspection.token_gradients import (
    BlockGradients as BlockGradients,
    TokenGradients as TokenGradients,
    token_gradients as token_gradients,
)
from skipless.models.inspection.token_report import (
    BlockTokens as BlockTokens,
    TokenReport as TokenReport,
    inspect_tokens as inspect_tokens,
)

# Hugging Face's models, with skips or without
from skipless.models.libraries.hf_factory import (
    create_hf_model as create_hf_model,
    from_pretrained as from_pretrained,
    load_tokenizer as load_tokenizer,
)

# timm's models, with skips or without
from skipless.models.libraries.timm_factory import (
    REGISTERED as REGISTERED,
    create_model as create_model,
    load_timm as load_timm,
)

# What a language model predicts
from skipless.models.logits import next_token_logits as next_token_logits

# Skips
from skipless.models.skip_gains import decayed_gains as decayed_gains, set_skip_gains_ as set_skip_gains_

# Conditioning of weights and tokens, as sibling papers have it
from skipless.models.spectral_conditioning import (
    initialize_conditioned_ as initialize_conditioned_,
    remove_spectral_conditioning_ as remove_spectral_conditioning_,
    spectral_conditioning_ as spectral_conditioning_,
)

# How a model starts: attention with a given diagonal, weights, positions
from skipless.models.starting.calibration import calibrate_ as calibrate_
from skipless.models.starting.initialization import initialize_ as initialize_
from skipless.models.starting.positions import set_positions_ as set_positions_
from skipless.models.surgery import block_views as block_views, remove_skips_ as remove_skips_
from skipless.models.token_graying import (
    insert_token_graying_ as insert_token_graying_,
    remove_token_graying_ as remove_token_graying_,
)
