# Optimizers
from skipless.optim.build import build_optimizer as build_optimizer
from skipless.optim.config import OptimizerConfig as OptimizerConfig
from skipless.optim.muon import MuonWithAdamW as MuonWithAdamW

# Schedules
from skipless.optim.schedules import WarmupCosine as WarmupCosine
from skipless.optim.soap.optimizer import SOAP as SOAP

# Full state dicts
from skipless.optim.state_dict import gathered_state as gathered_state, load_gathered_state_ as load_gathered_state_

# Weight decay
from skipless.optim.weight_decay import check_complete as check_complete, param_groups as param_groups
