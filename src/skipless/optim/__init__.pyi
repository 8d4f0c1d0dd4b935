# What moves the parameters
from skipless.optim.build import build_optimizer as build_optimizer
from skipless.optim.config import OptimizerConfig as OptimizerConfig

# How fast, by the step
from skipless.optim.schedules import WarmupCosine as WarmupCosine
from skipless.optim.soap.optimizer import SOAP as SOAP

# What they keep, brought together from all processes and handed out again
from skipless.optim.state_dict import gathered_state as gathered_state
from skipless.optim.state_dict import load_gathered_state_ as load_gathered_state_

# Which of them decay
from skipless.optim.weight_decay import check_complete as check_complete
from skipless.optim.weight_decay import param_groups as param_groups
