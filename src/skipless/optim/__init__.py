"""Optimizers, parameter groups and schedules."""

# What moves the parameters
from skipless.optim.build import OptimizerConfig, build_optimizer

# What they keep, brought together from all processes and handed out again
from skipless.optim.gathered import gathered_state, load_gathered_state_

# Which of them decay
from skipless.optim.param_groups import check_complete, param_groups

# How fast, by the step
from skipless.optim.schedules import WarmupCosine
from skipless.optim.soap import SOAP

__all__ = [
    "SOAP",
    "OptimizerConfig",
    "WarmupCosine",
    "build_optimizer",
    "check_complete",
    "gathered_state",
    "load_gathered_state_",
    "param_groups",
]
